"""What a card's memory allows: memory against settings, and the ways of evaluating a model of known size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmmlu_fast.machine.memory_fit import (
    GIB,
    SMALLEST,
    BatchSettings,
    MemoryOption,
    cpu_memory_options,
    engine_bytes,
    first_start_note,
    fitting_batch,
    gpu_memory_options,
    memory_advice,
    settings_for_memory,
    unsupported_gpu_reason,
    weights_bytes,
)
from kmmlu_fast.machine.model_size import find_model_facts

AX4 = find_model_facts("skt/A.X-4.0-Light", offline=True)
assert AX4 is not None


@pytest.mark.parametrize(
    ("gib", "tokens", "seqs"),
    [
        (8, 4096, 256),
        (12, 4096, 256),
        (16, 4096, 256),
        (22.0, 8192, 512),
        (24, 8192, 512),
        (32, 8192, 512),
        (39.4, 16384, 1024),
        (44.5, 16384, 1024),
        (48, 16384, 1024),
        (80, 16384, 1024),
    ],
)
def test_batch_by_memory(gib: float, tokens: int, seqs: int) -> None:
    assert settings_for_memory(int(gib * GIB)) == BatchSettings(tokens, seqs)


def ways(gib: float, capability: tuple[int, int], cards: int = 1) -> dict[str, MemoryOption]:
    total = int(gib * GIB)
    found = gpu_memory_options(AX4, capability, total, total - GIB // 2, cards)
    return {way.name if way.cards == 1 else f"{way.name} x{way.cards}": way for way in found}


@pytest.mark.parametrize(
    ("gib", "capability", "fitting"),
    [
        (8, (8, 9), {"4-bit", "nf4"}),
        (12, (8, 6), {"fp8_per_tensor", "4-bit", "nf4"}),
        (12, (8, 9), {"fp8_per_channel", "4-bit", "nf4"}),
        (16, (8, 9), {"fp8_per_channel", "4-bit", "nf4"}),
        (24, (8, 6), {"bfloat16", "fp8_per_tensor", "4-bit", "nf4"}),
        (24, (8, 9), {"bfloat16", "fp8_per_channel", "4-bit", "nf4"}),
        (48, (8, 9), {"bfloat16", "fp8_per_channel", "4-bit", "nf4"}),
        (80, (9, 0), {"bfloat16", "fp8_per_channel", "4-bit", "nf4"}),
    ],
)
def test_what_fits_of_seven_billion(gib: float, capability: tuple[int, int], fitting: set[str]) -> None:
    assert {name for name, way in ways(gib, capability).items() if way.fits} == fitting


def test_turing_computes_in_float16() -> None:
    found = ways(16, (7, 5))
    assert next(iter(found)) == "float16" and "fp8_per_tensor" in found and "bfloat16" not in found


def test_volta_is_refused_with_the_reason() -> None:
    assert ways(16, (7, 0)) == {}
    text = unsupported_gpu_reason((7, 0), "Tesla V100")
    assert text.startswith("Tesla V100 has compute capability 7.0") and "CUDA 13" in text
    assert unsupported_gpu_reason((7, 5)) == ""


def test_two_cards_hold_what_one_does_not() -> None:
    found = ways(12, (8, 6), cards=2)["bfloat16 x2"]
    assert found.fits and found.flags == ("--tensor-parallel-size", "2")
    assert "bfloat16 x3" not in ways(8, (8, 6), cards=3)  # 28 heads are not split in three


def test_weights_by_type() -> None:
    assert AX4.linear == 28 * (3584 * 128 * (2 * 28 + 2 * 4) + 3 * 3584 * 18944)
    assert weights_bytes(AX4, "bfloat16") == 2 * AX4.parameters
    assert weights_bytes(AX4, "float32") == 4 * AX4.parameters
    assert weights_bytes(AX4, "fp8_per_channel") == AX4.linear + 2 * AX4.unquantised_parameters
    assert weights_bytes(AX4, "4-bit") == int(AX4.linear * (0.5 + 2.5 / 128)) + 2 * AX4.unquantised_parameters


def test_parts_by_hand() -> None:
    parts = engine_bytes(AX4, "bfloat16", BatchSettings(4096, 256))
    assert parts["key-value cache"] == 4096 * 2 * 28 * 4 * 128 * 2  # tokens, both, layers, heads, size, bytes
    assert parts["activations"] == 4096 * (3 * 18944 + 6 * 3584) * 2
    assert parts["logits"] == 256 * 102400 * 10


def test_advice_names_what_fits() -> None:
    line = memory_advice(list(ways(16, (8, 9)).values()), AX4)
    assert "\n" not in line
    for words in (
        "skt/A.X-4.0-Light in bfloat16 needs",
        "--quantization fp8_per_channel",
        "4-bit (AWQ or GPTQ)",
        "B parameters",
    ):
        assert words in line
    assert memory_advice(list(ways(24, (8, 9)).values()), AX4) == ""


def test_advice_leaves_out_what_does_not_fit_either() -> None:
    line = memory_advice(list(ways(8, (8, 9)).values()), AX4)
    assert "fp8_per_channel" not in line and "4-bit (AWQ or GPTQ)" in line
    huge = replace(AX4, linear=50 * AX4.linear, parameters=50 * AX4.linear + AX4.unquantised_parameters)
    nothing = memory_advice(gpu_memory_options(huge, (8, 9), 8 * GIB, 8 * GIB), huge)
    assert "4-bit" not in nothing and "a smaller model" in nothing


def test_a_quantised_repository_is_taken_as_it_is() -> None:
    awq = replace(AX4, quantised=True, stored_as="awq", stored_bytes=5 * GIB)
    (only,) = gpu_memory_options(awq, (8, 6), 8 * GIB, 8 * GIB)
    assert only.name == "as stored (awq)" and only.flags == () and only.parts_bytes["weights"] == 5 * GIB
    (bnb,) = gpu_memory_options(replace(awq, stored_as="bitsandbytes"), (8, 6), 8 * GIB, 8 * GIB)
    assert "refuses bitsandbytes" in bnb.note and bnb.flags == ("--engine", "transformers")


def test_on_a_cpu_the_fast_type_is_named_where_it_is_not_the_models_own() -> None:
    float32, nf4 = cpu_memory_options(AX4, "float32", 64 * GIB)
    assert float32.flags == ("--dtype", "float32") and float32.fits and nf4.fits
    assert cpu_memory_options(AX4, "bfloat16", 64 * GIB)[0].flags == ()
    assert not cpu_memory_options(AX4, "float32", 16 * GIB)[0].fits


def test_a_batch_is_halved_until_it_fits() -> None:
    wanted = BatchSettings(16384, 1024)

    def chosen(gib: float) -> BatchSettings:
        return fitting_batch(AX4, "bfloat16", wanted, int(gib * GIB))

    assert chosen(72) == wanted
    assert chosen(17) == BatchSettings(8192, 512)
    assert chosen(15.5) == BatchSettings(4096, 256)
    assert chosen(8) == SMALLEST == BatchSettings(2048, 128)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0)])
def test_nothing_is_compiled_at_the_first_start_for_most_cards(capability: tuple[int, int]) -> None:
    assert first_start_note(capability, "A card") == ""


def test_a_card_whose_attention_is_compiled_by_the_driver_says_so() -> None:
    note = first_start_note((12, 0), "NVIDIA GeForce RTX 5090")
    assert note.startswith("NVIDIA GeForce RTX 5090: ") and "\n" not in note
    assert "compiles it at the first start" in note and "not measured" in note
