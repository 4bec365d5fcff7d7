"""The memory plan: the A.X-4.0-Light shape on a meta device, formulas by hand, the choice of batch,
refusals that say what to change.
"""

from __future__ import annotations

import pytest

from kmmlu_fast.core.errors import ModelError, TrainError
from kmmlu_fast.machine.device_memory import GIB, available_memory
from kmmlu_fast.training.config import PROJECTIONS
from kmmlu_fast.training.memory import MemoryPlan, estimate_step_memory, plan_memory
from kmmlu_fast.training.model_shape import ModelShape, shape_from_config


def ax_light() -> object:
    """The shape of skt/A.X-4.0-Light: 7.3 B parameters, Qwen2 architecture."""
    from transformers import Qwen2Config

    return Qwen2Config(
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=102_400,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return shape_from_config(ax_light(), 16, PROJECTIONS)


def test_trainable_parameters_of_ax_light_are_about_40_million(shape: ModelShape) -> None:
    # by hand: 28 layers x 16 x ((3584+3584) + 2 (3584+512) + (3584+3584) + 2 (3584+18944) + (18944+3584))
    assert shape.lora == 28 * 16 * (7168 + 2 * 4096 + 7168 + 3 * 22528) == 40_370_176
    assert shape.trainable_share == pytest.approx(0.0055, abs=0.0001)
    assert shape.total == pytest.approx(7.3e9, rel=0.01)


def test_peft_counts_the_same_on_the_meta_device(shape: ModelShape) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = get_peft_model(
            AutoModelForCausalLM.from_config(ax_light()),
            LoraConfig(r=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM"),
        )
    assert tuple(model.get_nb_trainable_parameters()) == (shape.lora, shape.total)


def test_weights_by_hand(shape: ModelShape) -> None:
    parts = estimate_step_memory(shape, 1024, 1, four_bit=True, cpu=False)
    linear = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    assert shape.quantised == linear
    # half a byte, a byte for 64 and four for 16,384 weights; embeddings, lm_head, norms and q/k/v biases in
    # 16 bit
    rest = 2 * 102_400 * 3584 + 28 * (2 * 3584 + 3584 + 2 * 512) + 3584
    assert parts["weights"] == int(linear * (0.5 + 1 / 64 + 1 / 4096) + rest * 2)
    assert parts["adapter and gradients"] == 40_370_176 * 8
    whole = estimate_step_memory(shape, 1024, 1, four_bit=False, cpu=False)
    assert whole["weights"] == (linear + rest) * 2


@pytest.mark.parametrize(("tokens", "limit_gib"), [(1024, 10), (2048, 12)])
def test_the_targets_for_ax_light_can_be_planned(shape: ModelShape, tokens: int, limit_gib: int) -> None:
    plan = plan_memory(shape, tokens, 16, limit_gib * GIB)
    assert plan.total_bytes < limit_gib * GIB and plan.micro_batch * plan.accumulation == 16
    assert plan.micro_batch >= 2  # the public experiment ran out of memory at batch 4 on 16 GB


def test_the_largest_micro_batch_that_fits_is_taken(shape: ModelShape) -> None:
    sizes = [
        plan_memory(shape, 1024, 16, gib * GIB, checkpointing="on").micro_batch for gib in (8, 10, 16, 24, 80)
    ]
    assert sizes == sorted(sizes) and sizes[-1] == 16 and sizes[0] < 16
    plan = plan_memory(shape, 1024, 16, 10 * GIB)
    bigger = estimate_step_memory(shape, 1024, plan.micro_batch * 2, four_bit=True, cpu=False)
    assert sum(bigger.values()) > 10 * GIB * 0.92
    assert plan_memory(shape, 1024, 16, 80 * GIB, micro_batch=2).accumulation == 8


def test_a_refusal_says_what_to_change(shape: ModelShape) -> None:
    with pytest.raises(TrainError, match=r"does not fit; --max-seq-length \d+ or a smaller --r"):
        plan_memory(shape, 32_768, 16, 10 * GIB)
    with pytest.raises(TrainError, match=r"does not fit; --micro-batch 8 or --max-seq-length"):
        plan_memory(shape, 2048, 16, 10 * GIB, micro_batch=16)
    with pytest.raises(TrainError, match=r"take a smaller model or free memory.*alone need \d"):
        plan_memory(shape, 1024, 16, 4 * GIB)
    with pytest.raises(TrainError, match=r"leave --load-in-4bit on"):
        plan_memory(shape, 1024, 16, 10 * GIB, four_bit=False)


def test_the_suggested_length_does_fit(shape: ModelShape) -> None:
    with pytest.raises(TrainError) as refusal:
        plan_memory(shape, 32_768, 16, 10 * GIB)
    length = int(str(refusal.value).split("--max-seq-length ")[1].split()[0])
    assert plan_memory(shape, length, 16, 10 * GIB).fits


def test_unknown_target_modules_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r"--target-modules qkv: none is in this model; it has down_proj, gate_proj"
    ):
        shape_from_config(ax_light(), 16, ["qkv"])


def test_logits_stand_only_where_there_are_labels(shape: ModelShape) -> None:
    def logits(length: int, batch: int, labels: int | None) -> int:
        return estimate_step_memory(shape, length, batch, four_bit=True, cpu=False, labels=labels)["logits"]

    assert logits(128, 4, 2) == 8 * 102_400 * 16 == logits(1024, 4, 2)
    assert logits(128, 4, None) == 4 * 128 * 102_400 * 16
    assert logits(1024, 16, None) == logits(1024, 16, 500) <= GIB  # many labels go through in pieces


def test_activations_are_kept_on_a_cpu_too_where_they_fit(shape: ModelShape) -> None:
    plan = plan_memory(shape, 128, 16, 200 * GIB, cpu=True, labels=2)
    assert not plan.checkpointing and plan.micro_batch == 16
    tight = plan_memory(shape, 128, 16, int(plan.total_bytes * 1.1), cpu=True, labels=2)
    assert tight.checkpointing and tight.total_bytes < plan.total_bytes


def test_device_memory_is_capped_by_the_user() -> None:
    free_bytes, _, _ = available_memory(0.25)
    assert free_bytes == GIB // 4


def test_activations_are_kept_where_a_full_micro_batch_leaves_the_room(shape: ModelShape) -> None:
    def planned(gib: int, checkpointing: str = "auto", **more: object) -> MemoryPlan:
        return plan_memory(shape, 256, 16, gib * GIB, checkpointing=checkpointing, **more)  # type: ignore[arg-type]

    assert planned(8).checkpointing and planned(12).checkpointing
    big = planned(80)
    assert not big.checkpointing and big.micro_batch == 16 and "no gradient checkpointing" in str(big)
    middle = planned(24)
    assert not middle.checkpointing and middle.micro_batch * 256 >= 2048
    assert middle.total_bytes <= 0.80 * 24 * GIB
    assert planned(80, "on").checkpointing and not planned(24, "off").checkpointing


def test_kept_activations_by_hand(shape: ModelShape) -> None:
    options = {"four_bit": True, "cpu": False}
    again = estimate_step_memory(shape, 100, 2, **options)
    kept = estimate_step_memory(shape, 100, 2, checkpointing=False, **options)
    # 28 layers keep 2 values of the MLP's size and 9 of the hidden size a token in 2 bytes; before, three
    # inputs were staged
    assert kept["activations"] - again["activations"] == 200 * 2 * (28 * (2 * 18944 + 9 * 3584) - 3 * 3584)
    assert {**kept, "activations": 0} == {**again, "activations": 0}


def test_float32_takes_twice_the_bytes_of_what_is_not_4_bit(shape: ModelShape) -> None:
    options = {"four_bit": False, "cpu": True}
    half = estimate_step_memory(shape, 100, 1, **options)
    whole = estimate_step_memory(shape, 100, 1, float32=True, **options)
    assert whole["weights"] == 2 * half["weights"]
    assert whole["activations"] == half["activations"]  # what is computed again is float32 either way
    kept = [
        estimate_step_memory(shape, 100, 1, checkpointing=False, float32=wide, **options)
        for wide in (False, True)
    ]
    assert kept[1]["activations"] > 1.3 * kept[0]["activations"]
