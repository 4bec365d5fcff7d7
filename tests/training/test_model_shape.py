"""The names to adapt and the count of what is trained: PEFT's own, on every family; each name must hit."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_families import FAMILIES, make_family_model

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.training.config import PROJECTIONS, TrainConfig
from kmmlu_fast.training.model_shape import read_model_shape


def test_fused_matrices_stand_for_their_parts(tmp_path: Path) -> None:
    shape = read_model_shape(make_family_model(tmp_path / "phi", "Phi3"), 16, PROJECTIONS)
    assert shape.targets == ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    # two layers, rank 16: (64 + 192) + (64 + 64) + (64 + 256) + (128 + 64)
    assert shape.lora == 2 * 16 * (256 + 128 + 320 + 192)


def test_every_name_must_hit(tmp_path: Path) -> None:
    base = make_family_model(tmp_path / "base", "Qwen2")
    with pytest.raises(
        ModelError, match="--target-modules v_prj: not in this model; it has down_proj, gate_proj"
    ):
        read_model_shape(base, 16, ["q_proj", "v_prj"])
    neox = make_family_model(tmp_path / "neox", "GPTNeoX")
    with pytest.raises(ModelError, match="none is in this model; it has dense, dense_4h_to_h"):
        read_model_shape(neox, 16, PROJECTIONS)
    assert read_model_shape(neox, 16, FAMILIES["GPTNeoX"][1]).lora > 0


def test_experts_are_counted_once_each(tmp_path: Path) -> None:
    base = make_family_model(tmp_path / "moe", "Qwen3Moe")
    shape = read_model_shape(base, 16, PROJECTIONS)
    attention = 2 * 16 * 4 * (64 + 64)
    assert shape.lora == attention + 2 * 4 * 16 * (2 * (64 + 64) + (32 + 64)) == 61_440  # Unsloth's own count
    with pytest.raises(ModelError, match="matrices of experts alone"):
        read_model_shape(base, 16, ["down_proj"])


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_heads_and_embeddings_are_refused_when_parsing(name: str) -> None:
    with pytest.raises(ValueError, match=f"--target-modules {name}: Unsloth saves such modules whole"):
        TrainConfig(data=["x"], target_modules=["q_proj", name])
