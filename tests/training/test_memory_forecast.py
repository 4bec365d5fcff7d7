"""The training plan from counts alone: the same shape as torch counts, and what fits on which card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kmmlu_fast.machine.model_size import facts_from_config, find_model_facts
from kmmlu_fast.training.config import PROJECTIONS, TrainConfig
from kmmlu_fast.training.memory_forecast import (
    EFFECTIVE_BATCH,
    LENGTHS,
    RANK,
    forecast_training,
    shape_from_facts,
)
from kmmlu_fast.training.model_shape import shape_from_config

GIB = 1 << 30
DOCS = Path(__file__).parents[2] / "docs"
AX4 = find_model_facts("skt/A.X-4.0-Light", offline=True)
assert AX4 is not None


def test_the_shape_is_the_one_that_torch_counts() -> None:
    from transformers import Qwen2Config

    config = Qwen2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        vocab_size=100,
        tie_word_embeddings=False,
    )
    counted = shape_from_config(config, RANK, PROJECTIONS)
    ours = shape_from_facts(facts_from_config(config.to_dict(), "made", "made"))
    biases = 2 * (64 + 32 + 32)  # Qwen2's, of query, key and value; and the last norm: too small to matter
    assert replace(ours, unquantised=ours.unquantised + biases + 64, targets=tuple(PROJECTIONS)) == counted


def test_defaults_are_trainings_own() -> None:
    fields = TrainConfig.model_fields
    assert fields["r"].default == RANK
    assert fields["effective_batch"].default == EFFECTIVE_BATCH
    assert fields["max_seq_length"].default == LENGTHS[0]


@pytest.mark.parametrize(
    ("free_gib", "length"), [(6.4, 256), (7.5, 1024), (11.5, 1024), (15.5, 1024), (23.5, 1024), (79.5, 1024)]
)
def test_lengths_by_free_memory(free_gib: float, length: int) -> None:
    found = forecast_training(AX4, int(free_gib * GIB), capability=(8, 9))
    assert found.plan is not None and found.plan.fits and found.plan.seq_length == length
    assert found.flags == (() if length == LENGTHS[0] else ("--max-seq-length", str(length)))
    assert f"{length} tokens per row, micro-batch {found.plan.micro_batch}" in found.line


def test_more_memory_recomputes_less() -> None:
    small, large = (forecast_training(AX4, gib * GIB, capability=(9, 0)).plan for gib in (12, 80))
    assert small is not None and large is not None
    assert small.checkpointing and not large.checkpointing


def test_types() -> None:
    assert forecast_training(AX4, 14 * GIB, capability=(7, 5)).dtype == "float16"
    assert forecast_training(AX4, 14 * GIB, capability=(8, 0)).dtype == "bfloat16"
    assert forecast_training(AX4, 60 * GIB, capability=None, cpu_dtype="float32").dtype == "float32"


def test_families_that_overflow_in_float16_are_planned_in_float32() -> None:
    gemma = replace(AX4, model_types=("gemma3_text",))
    old, other = (forecast_training(model, 14 * GIB, capability=(7, 5)) for model in (gemma, AX4))
    assert (old.dtype, other.dtype) == ("float32", "float16") and "in float32" in old.line
    assert old.plan is not None and other.plan is not None
    assert old.plan.parts_bytes["weights"] == other.plan.parts_bytes["weights"]  # stored in 16 bit
    at_one = [one.parts_bytes["activations"] / one.micro_batch for one in (old.plan, other.plan)]
    assert at_one[0] == pytest.approx(2 * at_one[1], rel=0.01)
    assert forecast_training(gemma, 14 * GIB, capability=(8, 6)).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("gib", "micro_batch", "checkpointing"),
    [
        (8, 2, True),
        (12, 8, True),
        (16, 16, True),
        (24, 2, False),
        (48, 4, False),
        (80, 8, False),
        (141, 16, False),
    ],
)
def test_the_table_of_cards_in_the_docs(gib: int, micro_batch: int, checkpointing: bool) -> None:
    """docs/hardware.md; half a GiB is in use, as on a card without a screen."""
    plan = forecast_training(AX4, gib * GIB - GIB // 2, capability=(8, 9)).plan
    assert plan is not None
    assert (plan.micro_batch, plan.seq_length, plan.checkpointing) == (micro_batch, 1024, checkpointing)
    row = next(
        line for line in (DOCS / "hardware.md").read_text("utf-8").splitlines() if f"| {gib} GB |" in line
    )
    assert f"micro-batch {micro_batch}" in row and ("nothing recomputed" in row) is not checkpointing


def test_a_small_model_is_trained_in_16_bit() -> None:
    demo = find_model_facts("demo", offline=True)
    found = forecast_training(demo, 23 * GIB, capability=(8, 9))
    assert not found.four_bit and found.flags == ("--no-load-in-4bit",)


def test_what_cannot_be_trained_says_why() -> None:
    assert (
        "quantised already"
        in forecast_training(replace(AX4, quantised=True), 80 * GIB, capability=(9, 0)).line
    )
    assert "does not fit" in forecast_training(AX4, 4 * GIB, capability=(8, 9)).line
    assert "config.json" in forecast_training(replace(AX4, layers=0), 80 * GIB, capability=(9, 0)).line
    assert forecast_training(None, 80 * GIB, capability=None).line == "unknown: the model's size is not known"


def test_a_cpu_without_bfloat16_needs_more() -> None:
    half, full = (
        forecast_training(AX4, 60 * GIB, capability=None, cpu_dtype=name).plan
        for name in ("bfloat16", "float32")
    )
    assert half is not None and full is not None
    assert full.parts_bytes["weights"] > half.parts_bytes["weights"]
