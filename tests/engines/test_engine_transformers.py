"""The transformers engine on a tiny model in float32: against plain forwards, ``generate``, and vLLM."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_cases
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import make_tiny_adapter, make_tiny_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from kmmlu_fast.core.errors import AdapterError, ConfigError, EngineError
from kmmlu_fast.core.flags import parse
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, Adapter, Completion, Request, Response
from kmmlu_fast.engines.transformers import TransformersEngine
from kmmlu_fast.engines.transformers_model import TransformersSettings, compute_dtype
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_plan
from kmmlu_fast.evaluation.session import evaluate
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model

LETTERS = engine_cases.LETTER_IDS
EXACT = 1e-5  # nats, float32


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products: on a busy machine two threads wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    make_tiny_model(folder / "base")
    for seed, name in ((1, "lora"), (2, "other")):
        make_tiny_adapter(folder / "base", folder / name, seed=seed)
    make_special_adapter(folder / "base", folder / "dora", use_dora=True)
    make_special_adapter(folder / "base", folder / "head", modules_to_save=["lm_head"])
    return folder


def make_special_adapter(model_path: Path, path: Path, **settings: Any) -> None:
    """A LoRA with other parts beside its matrices, all of them moved."""
    base = AutoModelForCausalLM.from_pretrained(model_path)
    torch.manual_seed(3)
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", **settings)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    model.save_pretrained(path)


def adapters_of(root: Path, *names: str) -> tuple[Adapter, ...]:
    return tuple(
        load_adapters([str(root / name) for name in names], resolve_model(str(root / "base")), "peft")
    )


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[TransformersEngine]:
    opened = open_engine(root, adapters_of(root, "lora", "other"))
    yield opened
    opened.close()


def open_engine(
    root: Path, adapters: tuple[Adapter, ...] = (), model: str = "base", **settings: Any
) -> TransformersEngine:
    common = {
        "dtype": "float32",
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 1024,
        "adapters": adapters,
    }
    return TransformersEngine(TransformersSettings(str(root / model), **(common | settings)))


def reference(root: Path, adapter: str | None = None, model: str = "base", **settings: Any) -> Any:
    found = AutoModelForCausalLM.from_pretrained(root / model, dtype=torch.float32, **settings)
    return PeftModel.from_pretrained(found, str(root / adapter)).eval() if adapter else found.eval()


def plain(model: Any, request: Request) -> tuple[float, ...]:
    """The request's log-probabilities by one unpadded forward."""
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([request.token_ids])).logits[0].float().log_softmax(-1)
    if request.score_last:
        start = len(request.token_ids) - request.score_last
        return (
            sum(
                float(logprobs[place - 1, request.token_ids[place]])
                for place in range(start, len(request.token_ids))
            ),
        )
    return tuple(float(logprobs[-1, token]) for token in request.candidate_ids)


def by_key(responses: Any) -> dict[str, Response]:
    return {response.request.key: response for response in responses}


def assert_plain(found: dict[str, Response], model: Any) -> None:
    for response in found.values():
        assert response.logprobs == pytest.approx(plain(model, response.request), abs=EXACT)


def scoring(adapter: Adapter | None = None) -> list[Request]:
    return [
        request for request in engine_cases.requests(adapter) if request.candidate_ids or request.score_last
    ]


def test_letters_and_continuations_are_a_plain_forwards(engine: TransformersEngine, root: Path) -> None:
    before = engine.stats()
    found = by_key(engine.generate(scoring()))
    assert len(found) == len(scoring()) == 72
    assert_plain(found, reference(root))
    after = engine.stats()
    assert after["requests"] - before["requests"] == 72
    assert after["prompt_tokens"] - before["prompt_tokens"] == sum(
        len(request.token_ids) for request in scoring()
    )


def test_shared_prefixes_are_computed_once_and_change_nothing(engine: TransformersEngine, root: Path) -> None:
    reused = by_key(engine.generate(scoring()))
    assert {response.cached_tokens for response in reused.values()} == {0, 300}
    assert sum(response.cached_tokens for response in reused.values()) > 0.7 * 300 * len(reused)
    alone = open_engine(root)
    alone._least_saved_tokens = None
    computed = by_key(alone.generate(scoring()))
    assert not any(response.cached_tokens for response in computed.values())
    for key, response in computed.items():
        assert reused[key].logprobs == pytest.approx(response.logprobs, abs=EXACT)


def test_shared_prefixes_of_a_model_with_sliding_windows(root: Path) -> None:
    config = json.loads((root / "base" / "config.json").read_text())
    shutil.copytree(root / "base", root / "sliding")
    sliding = {
        "use_sliding_window": True,
        "sliding_window": 40,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    (root / "sliding" / "config.json").write_text(json.dumps(config | sliding))
    opened, model = open_engine(root, model="sliding"), reference(root, model="sliding")
    found = by_key(opened.generate(scoring()))
    assert any(response.cached_tokens for response in found.values())
    assert_plain(found, model)
    assert plain(model, scoring()[0]) != pytest.approx(plain(reference(root), scoring()[0]), abs=1e-2)


def test_what_a_row_is_batched_with_changes_nothing(engine: TransformersEngine, root: Path) -> None:
    single = open_engine(root, max_num_seqs=1)
    one_by_one = by_key(single.generate(engine_cases.requests()))
    for key, response in by_key(engine.generate(engine_cases.requests())).items():
        assert response.logprobs == pytest.approx(one_by_one[key].logprobs, abs=EXACT)
        assert response.completions == one_by_one[key].completions


def test_requests_are_pulled_as_they_are_answered_and_follow_ups_join(engine: TransformersEngine) -> None:
    pulled = 0

    def requests() -> Iterator[Request]:
        nonlocal pulled
        for i in range(400):
            pulled += 1
            yield Request(str(i), "first", (5, 6, 7 + i % 50), candidate_ids=LETTERS)

    def again(response: Response) -> list[Request]:
        request = response.request
        return (
            [replace(request, stage="second", token_ids=(*request.token_ids, 9))]
            if request.stage == "first"
            else []
        )

    stream = engine.generate(requests(), again)
    next(stream)
    assert pulled < 400
    found = [response.request.key for response in stream]
    assert len(found) == 799 and len(set(found)) == 799


def test_follow_ups_are_counted(engine: TransformersEngine) -> None:
    found = by_key(engine.generate(engine_cases.requests(), engine_cases.follow_up))
    forced = [key for key in found if key.endswith("forced-0")]
    assert len(forced) == 12
    assert all(found[key.replace("forced-0", "reason")].followed_by == 1 for key in forced)


def written(prompts: list[tuple[int, ...]], **settings: Any) -> list[Request]:
    return [
        Request(str(i), "write", prompt, **({"max_tokens": 20} | settings))
        for i, prompt in enumerate(prompts)
    ]


def prompts() -> list[tuple[int, ...]]:
    return [request.token_ids[250:] for request in engine_cases.requests() if request.stage == "reason"]


def test_greedy_texts_are_those_of_generate_alone(engine: TransformersEngine, root: Path) -> None:
    model = reference(root)
    found = by_key(engine.generate(written(prompts())))
    for number, prompt in enumerate(prompts()):
        output = model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0
        )
        ids = output[0, len(prompt) :].tolist()
        [completion] = found[f"{number}#write"].completions
        assert list(completion.token_ids) == ids
        ended = ids[-1] == model.generation_config.eos_token_id
        assert completion.finish_reason == ("stop" if ended else "length")


def test_stop_strings_cut_texts_of_one_batch_at_their_own_places(root: Path) -> None:
    opened = open_engine(root)
    visible = range(
        6, 6 + 94
    )  # the token ids of ASCII's visible characters, which alone are read and written here
    with torch.no_grad():
        opened._model.get_output_embeddings().weight[[i for i in range(266) if i not in visible]] = 0
    ascii_prompts = [tuple(visible[token % 94] for token in prompt) for prompt in prompts()]

    def texts(**settings: Any) -> list[Completion]:
        found = by_key(opened.generate(written(ascii_prompts, **settings)))
        return [found[f"{number}#write"].completions[0] for number in range(len(ascii_prompts))]

    whole = texts()
    stops = tuple({completion.text[4 + place % 9 : 6 + place % 9] for place, completion in enumerate(whole)})
    assert all(len(completion.text) == 20 for completion in whole) and len(stops) > 6
    places = set()
    for before, after, included in zip(
        whole, texts(stop=stops), texts(stop=stops, include_stop=True), strict=True
    ):
        assert before.text.startswith(after.text) and not any(stop in after.text for stop in stops)
        assert after.finish_reason == "stop" and included.text[len(after.text) :] in stops
        assert before.token_ids[: len(included.text)] == after.token_ids == included.token_ids
        places.add(len(after.text))
    assert len(places) > 3


def test_samples_follow_their_seeds(engine: TransformersEngine) -> None:
    settings: dict[str, Any] = {"temperature": 0.8, "num_samples": 3, "max_tokens": 8}
    first = by_key(engine.generate(written(prompts(), seed=1, **settings)))
    again = by_key(engine.generate(written(prompts()[:2], seed=1, **settings)))
    other = by_key(engine.generate(written(prompts(), seed=100, **settings)))
    assert all(len(response.completions) == 3 for response in first.values())
    assert all(first[key].completions == response.completions for key, response in again.items())
    assert any(first[key].completions != response.completions for key, response in other.items())
    assert any(len(set(response.completions)) > 1 for response in first.values())


def test_adapters_of_one_stream_are_each_the_merged_models(engine: TransformersEngine, root: Path) -> None:
    lora, other = engine.settings.adapters
    mixed = [
        replace(request, stage=f"{request.stage}-{adapter.name if adapter else 'base'}", adapter=adapter)
        for request in scoring()[:20]
        for adapter in (None, lora, other)
    ]
    found = by_key(engine.generate(mixed))
    models = {None: reference(root)} | {
        adapter: reference(root, adapter.name).merge_and_unload() for adapter in (lora, other)
    }
    for response in found.values():
        wanted = plain(models[response.request.adapter], response.request)
        assert response.logprobs == pytest.approx(wanted, abs=1e-4)
    some = scoring()[0]
    assert len({plain(model, some) for model in models.values()}) == 3


@pytest.mark.parametrize("name", ["dora", "head"])
def test_adapters_that_vllm_cannot_serve(root: Path, name: str) -> None:
    [adapter] = adapters_of(root, name)
    opened = open_engine(root, (adapter,))
    base = scoring()[:5]
    found = by_key(
        opened.generate([*base, *(replace(request, stage="tuned", adapter=adapter) for request in base)])
    )
    model, tuned = reference(root), reference(root, name)
    for response in found.values():
        wanted = plain(tuned if response.request.adapter else model, response.request)
        assert response.logprobs == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(AdapterError, match="vLLM"):
        load_adapters([str(root / name)], resolve_model(str(root / "base")), "serve")


def test_an_adapter_for_other_modules_is_refused(root: Path) -> None:
    shutil.copytree(root / "lora", root / "foreign")
    config = json.loads((root / "foreign" / "adapter_config.json").read_text())
    (root / "foreign" / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(AdapterError, match="weights it has no place for") as caught:
        open_engine(root, adapters_of(root, "foreign"))
    assert "\n" not in str(caught.value)


def test_biases_are_refused_unless_merged(root: Path) -> None:
    shutil.copytree(root / "lora", root / "biased")
    config = json.loads((root / "biased" / "adapter_config.json").read_text())
    (root / "biased" / "adapter_config.json").write_text(json.dumps(config | {"bias": "all"}))
    with pytest.raises(AdapterError, match="--adapter-mode merge"):
        adapters_of(root, "biased")


def nf4() -> Any:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def test_a_4_bit_base_and_its_adapter_are_bitsandbytes_and_pefts(root: Path) -> None:
    [lora] = adapters_of(root, "lora")
    opened = open_engine(root, (lora,), quantization="nf4")
    assert opened.stats()["quantization"] == "nf4"
    found = by_key(
        opened.generate([*scoring(), *(replace(r, stage=f"{r.stage}-lora", adapter=lora) for r in scoring())])
    )
    assert len(found) == 144
    for adapter, name in ((None, None), (lora, "lora")):
        model = reference(root, name, quantization_config=nf4(), device_map={"": "cpu"})
        for module in model.modules():
            module.support_avx512bf16_for_cpu = False  # the kernel that rounds, on CPUs that have it
        assert_plain({k: r for k, r in found.items() if r.request.adapter == adapter}, model)
    whole = plain(reference(root), scoring()[0])
    assert found[scoring()[0].key].logprobs != pytest.approx(whole, abs=1e-2), "it must really be 4 bit"


def test_out_of_memory_halves_the_batch_and_goes_on(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    opened, model = open_engine(root), reference(root)
    score, write = opened._scorer.score, opened._write

    def small(work: Any, rows: Any) -> Any:
        def limited(batch: Any) -> Any:
            if rows(batch) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return work(batch)

        return limited

    opened._scorer.score = small(score, lambda batch: len(batch.requests))  # type: ignore[method-assign]
    found = by_key(opened.generate(scoring()))
    assert len(found) == 72
    assert_plain(found, model)
    said = caplog.messages
    assert len(said) == 2 and all("memory ran out" in line for line in said)
    opened._limits = replace(opened._limits, rows=8, cached_tokens=8000)
    opened._write = small(write, len)  # type: ignore[method-assign]
    assert len(by_key(opened.generate(written(prompts())))) == 12


def test_no_memory_for_a_single_prompt_is_an_error(root: Path) -> None:
    opened = open_engine(root)

    def never(batch: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    opened._scorer.score = never  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="not enough memory for a prompt of 330 tokens"):
        list(opened.generate([request for request in scoring() if len(request.token_ids) == 330][:1]))


def test_closing_frees_the_model(root: Path) -> None:
    import gc
    import weakref

    opened = open_engine(root, adapters_of(root, "lora"))
    list(opened.generate(scoring()[:2]))
    model = weakref.ref(opened._model)
    opened.close()
    opened.close()
    gc.collect()
    assert model() is None
    with pytest.raises(EngineError, match="closed"):
        next(opened.generate([]))


def test_what_vllm_quantised_is_refused_with_what_to_do(root: Path) -> None:
    shutil.copytree(root / "base", root / "awq")
    config = json.loads((root / "base" / "config.json").read_text())
    (root / "awq" / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "awq", "bits": 4}})
    )
    with pytest.raises(
        EngineError, match="quantised as awq, which vLLM serves: leave --engine transformers out"
    ):
        open_engine(root, model="awq")


def test_the_type_that_auto_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmmlu_fast.engines import transformers_model as module

    for native, saved, expected in (
        ("bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "float32", "bfloat16"),
        ("bfloat16", "float16", "float16"),
        ("float32", "bfloat16", "float32"),
    ):
        monkeypatch.setattr(module, "best_cpu_dtype", lambda native=native: native)
        assert compute_dtype("auto", saved, "cpu") == expected
    assert compute_dtype("float16", "bfloat16", "cpu") == "float16"


def flags(root: Path, *more: str) -> list[str]:
    return [
        "--model",
        str(root / "base"),
        "--dataset",
        "sample",
        "--limit",
        "1",
        "--output-dir",
        str(root / "runs"),
        *more,
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--engine", "transformers", "--quantization", "fp8"], "takes nf4"),
        (["--quantization", "bitsandbytes"], "add --engine transformers"),
        (["--engine", "transformers", "--tensor-parallel-size", "2"], "one device"),
        (["--engine", "transformers", "--load-format", "dummy"], "--load-format goes with vLLM"),
        (
            ["--engine", "transformers", "--quantization", "nf4", "--adapter-mode", "merge"],
            "merge does not go with",
        ),
    ],
)
def test_settings_that_do_not_go_together(root: Path, given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(EvalConfig, flags(root, *given), "eval")


def test_engine_and_quantisation_are_in_the_fingerprint_and_vllms_stays(root: Path) -> None:
    def parts(*more: str) -> dict[str, Any]:
        plan = make_plan(parse(EvalConfig, flags(root, *more), "eval"))
        plan.close()
        return plan.parts

    by_vllm, alone = parts(), parts("--engine", "transformers")
    assert "engine" not in by_vllm and set(by_vllm["versions"]) == {"vllm", "transformers"}
    four_bit = parts("--engine", "transformers", "--quantization", "nf4")
    assert four_bit == parts("--engine", "transformers", "--quantization", "bitsandbytes")
    assert len({json.dumps(found, sort_keys=True) for found in (by_vllm, alone, four_bit)}) == 3


def test_an_evaluation_of_base_and_adapter(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    adapter = [
        "--adapter",
        str(root / "lora"),
        "--dtype",
        "float32",
        "--engine",
        "transformers",
        "--num-fewshot",
        "2",
    ]
    base, lora = evaluate(parse(EvalConfig, flags(root, *adapter), "eval"))
    assert "transformers on a CPU is the slower way" in caplog.text
    assert len(base.predictions) == len(lora.predictions) == 45
    assert lora.metrics["adapter_shift"]["largest_nats"] > 0.1
    assert lora.metrics["engine"]["engine"] == "transformers"
    assert base.predictions["prediction"].to_list() != lora.predictions["prediction"].to_list()


@pytest.mark.engine
def test_the_answers_are_vllms(tmp_path_factory: pytest.TempPathFactory) -> None:
    files = engine_cases.files(tmp_path_factory)
    wanted = [response for response in engine_cases.in_process(files) if response.request.stage != "sampled"]
    settings = TransformersSettings(
        str(files.model), dtype="float32", max_model_len=1024, adapters=(files.adapter,)
    )
    opened = TransformersEngine(settings)
    got = [response for response in engine_cases.ask(opened, files) if response.request.stage != "sampled"]
    engine_cases.assert_same(got, wanted)
    output = files.model.parent / "runs-transformers"
    config = parse(EvalConfig, [*engine_cases.flags(files, output), "--engine", "transformers"], "eval")
    runs = evaluate(config)
    engine_cases.assert_same_predictions(runs, files)
    assert all(run.predictions[column].is_not_null().all() for run in runs for column in LOGPROB_COLUMNS)


UNSLOTH = """
import sys
sys.modules["vllm"] = None
import unsloth
import torch
from unsloth import FastLanguageModel
settings = {"max_seq_length": 256, "load_in_4bit": True, "dtype": torch.float32}
model, _ = FastLanguageModel.from_pretrained(sys.argv[1], **settings)
layers = {name: m.weight for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"}
torch.save({name: (weight.data, weight.quant_state.absmax) for name, weight in layers.items()}, sys.argv[2])
"""


@pytest.mark.engine
def test_the_4_bit_base_is_unsloths_byte_for_byte(root: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", UNSLOTH, str(root / "base"), str(root / "unsloth.pt")],
        check=True,
        capture_output=True,
    )
    wanted = torch.load(root / "unsloth.pt")
    opened = open_engine(root, quantization="nf4")
    own = {
        name: module
        for name, module in opened._model.named_modules()
        if type(module).__name__ == "Linear4bit"
    }
    assert sorted(own) == sorted(wanted) and len(own) == 14
    for name, (weight, absmax) in wanted.items():
        assert torch.equal(own[name].weight.data, weight) and torch.equal(
            own[name].weight.quant_state.absmax, absmax
        )
