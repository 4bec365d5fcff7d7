"""The transformers engine on a tiny model in float32: against plain forwards, ``generate``, and vLLM."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_cases
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers_cases import (
    EXACT,
    adapters_of,
    assert_plain,
    by_key,
    make_files,
    open_engine,
    plain,
    prompts,
    reference,
    scoring,
    written,
)

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, Candidates, Completion, Request, Response
from kmmlu_fast.engines.hf import model
from kmmlu_fast.engines.hf.engine import TransformersEngine
from kmmlu_fast.engines.hf.model import TransformersSettings, compute_dtype
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation

pytestmark = pytest.mark.usefixtures("one_thread")

LETTERS = engine_cases.LETTER_IDS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("transformers"))


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[TransformersEngine]:
    opened = open_engine(root, adapters_of(root, "lora", "other"))
    yield opened
    opened.close()


def test_letters_and_continuations_are_a_plain_forwards(engine: TransformersEngine, root: Path) -> None:
    before = engine.stats()
    responses = by_key(engine.generate(scoring()))
    assert len(responses) == len(scoring()) == 72
    assert_plain(responses, reference(root))
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
    responses = by_key(opened.generate(scoring()))
    assert any(response.cached_tokens for response in responses.values())
    assert_plain(responses, model)
    assert plain(model, scoring()[0]) != pytest.approx(plain(reference(root), scoring()[0]), abs=1e-2)


SMALL: dict[str, Any] = {"vocab_size": 266, "hidden_size": 64, "num_hidden_layers": 4, "bos_token_id": 1}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96}
SMALL |= {"max_position_embeddings": 1024, "initializer_range": 0.2, "eos_token_id": 2, "pad_token_id": 0}
# Sliding windows, capped and scaled logits, experts, learnt positions.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gemma2": SMALL | {"sliding_window": 40, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 16},
    "cohere2": SMALL | {"sliding_window": 40, "logit_scale": 0.25},
    "qwen3_moe": SMALL | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48},
    "gpt2": {"vocab_size": 266, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_architectures(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{"bos_token_id": 1, "eos_token_id": 2} | ARCHITECTURES[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    opened = open_engine(tmp_path)
    responses = by_key(opened.generate(scoring()))
    assert opened.stats()["prefix_cache_hit_rate"] > 0.5
    assert_plain(responses, reference(tmp_path))


def test_letters_in_float32_on_a_model_in_bfloat16(root: Path) -> None:
    request = scoring()[0]
    for precision, tolerance in (("float32", EXACT), ("auto", 0.1)):
        opened = open_engine(root, dtype="bfloat16", letter_precision=precision)
        head, seen = opened._model.get_output_embeddings(), []
        head.register_forward_pre_hook(lambda _, arguments, seen=seen: seen.append(arguments[0]))
        [response] = opened.generate([request])
        assert seen[0].shape == (1, 1, 64) and seen[0].dtype == head.weight.dtype == torch.bfloat16
        logits = head.weight.double() @ seen[0][0, 0].double()
        wanted = logits.log_softmax(-1)[list(LETTERS)].tolist()
        assert response.logprobs == pytest.approx(wanted, abs=tolerance)
        assert (response.logprobs == pytest.approx(wanted, abs=EXACT)) is (precision == "float32")


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
            yield Request(
                question_id=str(i), stage="first", token_ids=(5, 6, 7 + i % 50), want=Candidates(LETTERS)
            )

    def repeat(response: Response) -> list[Request]:
        request = response.request
        return (
            [replace(request, stage="second", token_ids=(*request.token_ids, 9))]
            if request.stage == "first"
            else []
        )

    stream = engine.generate(requests(), repeat)
    next(stream)
    assert pulled < 400
    keys = [response.request.key for response in stream]
    assert len(keys) == 799 and len(set(keys)) == 799


def test_follow_ups_are_counted(engine: TransformersEngine) -> None:
    responses = by_key(engine.generate(engine_cases.requests(), engine_cases.follow_up))
    forced = [key for key in responses if key.endswith("forced-0")]
    assert len(forced) == 12
    assert all(responses[key.replace("forced-0", "reason")].followed_by == 1 for key in forced)


def test_greedy_texts_are_those_of_generate_alone(engine: TransformersEngine, root: Path) -> None:
    model = reference(root)
    responses = by_key(engine.generate(written(prompts())))
    for number, prompt in enumerate(prompts()):
        output = model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0
        )
        ids = output[0, len(prompt) :].tolist()
        [completion] = responses[f"{number}#write"].completions
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
        responses = by_key(opened.generate(written(ascii_prompts, **settings)))
        return [responses[f"{number}#write"].completions[0] for number in range(len(ascii_prompts))]

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
    repeated = by_key(engine.generate(written(prompts()[:2], seed=1, **settings)))
    other = by_key(engine.generate(written(prompts(), seed=100, **settings)))
    assert all(len(response.completions) == 3 for response in first.values())
    assert all(first[key].completions == response.completions for key, response in repeated.items())
    assert any(first[key].completions != response.completions for key, response in other.items())
    assert any(len(set(response.completions)) > 1 for response in first.values())


def test_out_of_memory_halves_the_batch_and_goes_on(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    opened, model = open_engine(root), reference(root)
    score, write = opened._scorer.score, opened._generate_batch

    def small(work: Any, rows: Any) -> Any:
        def limited(batch: Any) -> Any:
            if rows(batch) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return work(batch)

        return limited

    opened._scorer.score = small(score, lambda batch: len(batch.requests))  # type: ignore[method-assign]
    responses = by_key(opened.generate(scoring()))
    assert len(responses) == 72
    assert_plain(responses, model)
    messages = caplog.messages
    assert len(messages) == 2 and all("out of memory" in line for line in messages)
    opened._limits = replace(opened._limits, rows=8, cached_tokens=8000)
    opened._generate_batch = small(write, len)  # type: ignore[method-assign]
    assert len(by_key(opened.generate(written(prompts())))) == 12


def test_no_memory_for_a_single_prompt_is_an_error(root: Path) -> None:
    opened = open_engine(root)

    def never(batch: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    opened._scorer.score = never  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="not enough memory for a prompt of 330 tokens"):
        list(opened.generate([request for request in scoring() if len(request.token_ids) == 330][:1]))


def test_closing_frees_the_model(root: Path) -> None:

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
    module = model

    for native, saved, expected in (
        ("bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "float32", "bfloat16"),
        ("bfloat16", "float16", "float16"),
        ("float32", "bfloat16", "float32"),
    ):
        monkeypatch.setattr(module, "best_cpu_dtype", lambda native=native: native)
        assert compute_dtype("auto", saved, "cpu") == expected
    assert compute_dtype("float16", "bfloat16", "cpu") == "float16"


@pytest.mark.engine
def test_the_answers_are_vllms(tmp_path_factory: pytest.TempPathFactory) -> None:
    files = engine_cases.files(tmp_path_factory)
    wanted = [response for response in engine_cases.in_process(files) if response.request.stage != "sampled"]
    settings = TransformersSettings(
        model=str(files.model), dtype="float32", max_model_len=1024, adapters=(files.adapter,)
    )
    opened = TransformersEngine(settings)
    got = [response for response in engine_cases.ask(opened, files) if response.request.stage != "sampled"]
    engine_cases.assert_same(got, wanted)
    output = files.model.parent / "runs-transformers"
    config = parse_config(
        EvalConfig, [*engine_cases.flags(files, output), "--engine", "transformers"], "eval"
    )
    runs = run_evaluation(config)
    engine_cases.assert_same_predictions(runs, files)
    assert all(run.predictions[column].is_not_null().all() for run in runs for column in LOGPROB_COLUMNS)
