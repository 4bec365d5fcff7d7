"""The engine's settings by the card's memory and generation, and the one line where a model
does not go onto a card.
"""

from __future__ import annotations

import pytest

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.engines.vllm import device_arguments
from kmmlu_fast.engines.vllm.device_arguments import EngineSettings
from kmmlu_fast.machine import model_size, packages
from kmmlu_fast.machine.gpus import Gpu
from kmmlu_fast.machine.memory_fit import GIB
from kmmlu_fast.machine.model_size import ModelFacts

SHAPE = {  # 7.26 B parameters
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 102400,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
BIG = model_size.facts_from_config(SHAPE, "big", "test")
SMALL = model_size.facts_from_config(
    {**SHAPE, "hidden_size": 1024, "num_attention_heads": 8, "intermediate_size": 4096}, "small", "test"
)


def card(gib: float, capability: tuple[int, int] = (8, 9), used_gib: float = 0.5) -> Gpu:
    return Gpu(
        name="A card",
        capability=capability,
        total_bytes=int(gib * GIB),
        free_bytes=int((gib - used_gib) * GIB),
        driver="580.95.05",
    )


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModelFacts]:
    models = {"big": BIG, "small": SMALL}
    monkeypatch.setattr(model_size, "find_model_facts", lambda name, *_, **__: models.get(name))
    return models


@pytest.mark.parametrize(
    ("gib", "tokens", "seqs"),
    [(8, 4096, 256), (12, 4096, 256), (16, 4096, 256), (24, 8192, 512), (48, 16384, 1024), (80, 16384, 1024)],
)
def test_the_batch_is_the_cards_size(
    known: dict[str, ModelFacts], gib: float, tokens: int, seqs: int
) -> None:
    letters = device_arguments.gpu_arguments(EngineSettings(model="small", generates=False), card(gib))
    assert (letters["max_num_batched_tokens"], letters["max_num_seqs"]) == (tokens, seqs)
    # texts: no more than vLLM captures a graph for
    texts = device_arguments.gpu_arguments(EngineSettings(model="small"), card(gib))
    assert (texts["max_num_batched_tokens"], texts["max_num_seqs"]) == (tokens, min(seqs, 512))


def test_sampled_prompts_are_not_chunked_on_a_cpu(known: dict[str, ModelFacts]) -> None:
    plain = device_arguments.cpu_arguments(EngineSettings(model="small", max_model_len=4096))
    assert plain["max_num_batched_tokens"] == 2048 and "enable_chunked_prefill" not in plain
    sampled = device_arguments.cpu_arguments(
        EngineSettings(model="small", max_model_len=4096, max_num_batched_tokens=512, samples=True)
    )
    assert sampled["max_num_batched_tokens"] == 4096 and sampled["enable_chunked_prefill"] is False
    on_card = device_arguments.gpu_arguments(EngineSettings(model="small", samples=True), card(24))
    assert "enable_chunked_prefill" not in on_card, "a card can rewind its generators"


def test_the_users_own_batch_stays_and_holds_all_its_requests(known: dict[str, ModelFacts]) -> None:
    arguments = device_arguments.gpu_arguments(
        EngineSettings(model="small", max_num_seqs=3000, max_num_batched_tokens=2048), card(24)
    )
    assert (arguments["max_num_batched_tokens"], arguments["max_num_seqs"]) == (3000, 3000)


def test_a_step_that_does_not_fit_beside_the_weights_becomes_smaller_before_the_model_is_refused(
    known: dict[str, ModelFacts],
) -> None:
    sizes = [gib / 4 for gib in range(4 * 13, 4 * 20)]
    batches = []
    for gib in sizes:
        try:
            batches.append(
                device_arguments.gpu_arguments(EngineSettings(model="big"), card(gib, (8, 0)))[
                    "max_num_batched_tokens"
                ]
            )
        except EngineError:
            batches.append(0)
    assert batches == sorted(batches) and {0, 2048, 4096} <= set(batches)


@pytest.mark.parametrize(
    ("gib", "fits"), [(8, False), (12, False), (16, False), (24, True), (48, True), (80, True)]
)
def test_seven_billion_in_16_bit_by_card(known: dict[str, ModelFacts], gib: float, fits: bool) -> None:
    if fits:
        assert device_arguments.gpu_arguments(EngineSettings(model="big"), card(gib))["max_num_seqs"] > 0
        return
    with pytest.raises(EngineError) as caught:
        device_arguments.gpu_arguments(EngineSettings(model="big"), card(gib))
    line = str(caught.value)
    assert "\n" not in line and "weights in bfloat16 take 13.5 GiB" in line and f"{gib} GiB" in line
    assert ("fp8_per_channel" in line) == (gib > 8)  # 7 B in 8 bit do not fit into 8 GiB either
    assert "AWQ or GPTQ" in line and "a smaller model" in line


def test_nothing_is_refused_of_a_model_or_a_card_that_nothing_is_known_of(
    known: dict[str, ModelFacts],
) -> None:
    assert (
        device_arguments.gpu_arguments(EngineSettings(model="someone/unknown"), card(8))["max_num_seqs"]
        == 256
    )
    assert (
        device_arguments.gpu_arguments(
            EngineSettings(model="big"),
            Gpu(name="GPU", capability=(8, 7), total_bytes=0, free_bytes=0, driver=""),
        )["gpu_memory_utilization"]
        == 0.90
    )


def test_precision_is_never_changed_and_what_a_card_cannot_do_is_one_line(
    known: dict[str, ModelFacts],
) -> None:
    for capability in ((7, 5), (8, 0), (8, 6)):
        with pytest.raises(EngineError, match=r"needs compute capability 8\.9.*fp8_per_tensor"):
            device_arguments.gpu_arguments(
                EngineSettings(model="small", quantization="fp8_per_channel"), card(24, capability)
            )
    with pytest.raises(EngineError, match=r"bfloat16 needs compute capability 8\.0"):
        device_arguments.gpu_arguments(EngineSettings(model="small", dtype="bfloat16"), card(16, (7, 5)))
    with pytest.raises(EngineError, match=r"7\.0"):
        device_arguments.gpu_arguments(EngineSettings(model="small"), card(16, (7, 0)))
    arguments = device_arguments.gpu_arguments(EngineSettings(model="small"), card(16, (7, 5)))
    assert not {"dtype", "quantization"} & arguments.keys()


def test_a_bitsandbytes_repository_is_told_where_to_go(known: dict[str, ModelFacts]) -> None:
    stored = {**SHAPE, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    known["stored"] = model_size.facts_from_config(stored, "stored", "test")
    with pytest.raises(EngineError, match="--engine transformers"):
        device_arguments.gpu_arguments(EngineSettings(model="stored"), card(24))


def test_letters_run_without_graphs_and_text_with_them(known: dict[str, ModelFacts]) -> None:
    assert (
        device_arguments.gpu_arguments(EngineSettings(model="small", generates=False), card(24))[
            "enforce_eager"
        ]
        is True
    )
    assert (
        device_arguments.gpu_arguments(EngineSettings(model="small", generates=True), card(24))[
            "enforce_eager"
        ]
        is False
    )


@pytest.mark.parametrize(
    ("gib", "used", "share"), [(80, 0.5, 0.90), (24, 0.5, 0.90), (8, 1.0, 0.80), (24, 12.0, 0.47)]
)
def test_the_engine_takes_no_more_than_others_leave_free(gib: float, used: float, share: float) -> None:
    assert device_arguments.memory_share(0.90, card(gib, used_gib=used)) == share


def test_quantisation_names_are_the_installed_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "quantization_names", lambda: ("awq", "fp8", "fp8_per_channel"))
    assert (
        device_arguments.quantization_problem(None)
        == device_arguments.quantization_problem("fp8_per_channel")
        == ""
    )
    assert "knows awq, fp8, fp8_per_channel" in device_arguments.quantization_problem("fp8_per_chanel")
    assert "--engine transformers" in device_arguments.quantization_problem("bitsandbytes")
    monkeypatch.setattr(packages, "quantization_names", lambda: ())
    assert (
        device_arguments.quantization_problem("anything") == ""
    )  # no vLLM, or another one: nothing is known


def test_the_installed_vllm_has_a_list_that_is_found() -> None:
    assert {"fp8_per_channel", "fp8_per_tensor", "awq", "gptq"} <= set(packages.quantization_names())
    assert "bitsandbytes" not in packages.quantization_names()


CACHED_VALUES = 2 * 28 * 4 * 128  # of the big shape, a token


@pytest.mark.parametrize(
    ("settings", "tokens", "value_bytes"),
    [
        # letters of short prompts: four steps' tokens, however many requests a batch may have
        ({"generates": False, "max_model_len": 512, "dtype": "bfloat16"}, 4 * 2048, 2),
        ({"generates": False, "max_model_len": 512, "dtype": "float32"}, 4 * 2048, 4),
        # never more than a full batch holds
        ({"generates": False, "max_model_len": 256, "max_num_seqs": 8, "dtype": "bfloat16"}, 8 * 256, 2),
        # texts: a full batch at its full length
        ({"max_model_len": 256, "dtype": "bfloat16"}, 64 * 256, 2),
        # letters with exemplars: the same, for their prefixes are found again
        (
            {"generates": False, "max_model_len": 2048, "max_num_seqs": 4, "dtype": "bfloat16"},
            4 * 2048,
            2,
        ),
    ],
)
def test_the_cache_on_a_cpu_is_as_large_as_its_requests_need(
    known: dict[str, ModelFacts], settings: dict[str, object], tokens: int, value_bytes: int
) -> None:
    assert BIG.kv_values_per_token == CACHED_VALUES
    chosen = EngineSettings(model="big", **settings)  # type: ignore[arg-type]
    wanted = tokens * CACHED_VALUES * value_bytes
    cache_bytes = device_arguments.cpu_cache_bytes(chosen, chosen.max_num_seqs or 64, 2048)
    assert cache_bytes == max(wanted, GIB // 4)  # vLLM needs some blocks for one short request too


def test_the_cache_on_a_cpu_is_two_gib_at_most_and_where_nothing_is_known(
    known: dict[str, ModelFacts],
) -> None:
    long = EngineSettings(model="big", max_model_len=8192, dtype="bfloat16")
    assert device_arguments.cpu_cache_bytes(long, 64, 2048) == 2 * GIB
    assert device_arguments.cpu_cache_bytes(EngineSettings(model="unknown"), 64, 2048) == 2 * GIB


def test_whoever_sets_vllms_own_variable_has_that_cache(
    known: dict[str, ModelFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "installed_kind", lambda: "cpu")
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    settings = EngineSettings(model="big", dtype="bfloat16")
    assert device_arguments.cpu_arguments(settings)["kv_cache_memory_bytes"] == 2 * GIB
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert "kv_cache_memory_bytes" not in device_arguments.cpu_arguments(settings)
