"""Slopes of weights on the adapter's change, from files written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kmmlu_fast.models.deltas import LoraDelta
from kmmlu_fast.shipping.tensors import checkpoint_name, open_tensors
from kmmlu_fast.shipping.weights import compare_weights

Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"


def draw(*shape: int, seed: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


BASE = {f"{Q}.weight": draw(64, 32, seed=1), f"{K}.weight": draw(16, 32, seed=2)}
BASE |= {NORM: draw(32, seed=3), EMBED: draw(50, 32, seed=4)}
DELTAS = {
    Q: LoraDelta(draw(2, 32, seed=5), draw(64, 2, seed=6), 0.1),
    K: LoraDelta(draw(2, 32, seed=7), draw(16, 2, seed=8), 0.1),
}


def change(module: str) -> Any:
    delta = DELTAS[module]
    return delta.scale * delta.up @ delta.down


def write(folder: Path, tensors: dict[str, Any]) -> Path:
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0, -0.5])
def test_slopes(tmp_path: Path, factor: float) -> None:
    merged = {**BASE, **{f"{m}.weight": BASE[f"{m}.weight"] + factor * change(m) for m in (Q, K)}}
    found = compare_weights(write(tmp_path / "base", BASE), DELTAS, write(tmp_path / "merged", merged))
    assert [each.slope for each in found.changed] == pytest.approx([factor, factor], abs=1e-6)
    assert max(each.residual for each in found.differences) < 1e-6


def test_noise_is_residual_and_not_slope(tmp_path: Path) -> None:
    noisy = BASE[f"{Q}.weight"] + change(Q) + 0.05 * draw(64, 32, seed=9)
    merged = {**BASE, f"{Q}.weight": noisy, f"{K}.weight": BASE[f"{K}.weight"] + change(K)}
    found = compare_weights(write(tmp_path / "base", BASE), DELTAS, write(tmp_path / "merged", merged))
    query = next(each for each in found.changed if each.name == f"{Q}.weight")
    assert query.residual == pytest.approx(0.05, rel=0.1)
    assert abs(query.slope - 1) < 4 * query.slope_error


def test_heads_rows_and_absent_tensors(tmp_path: Path) -> None:
    base = write(tmp_path / "base", BASE)
    copy = {**BASE, "lm_head.weight": BASE[EMBED].clone()}
    assert not compare_weights(base, DELTAS, write(tmp_path / "copy", copy)).extra_head
    own = {**BASE, "lm_head.weight": draw(50, 32, seed=10)}
    assert compare_weights(base, DELTAS, write(tmp_path / "own", own)).extra_head
    padded = {**BASE, EMBED: torch.cat([BASE[EMBED], torch.zeros(6, 32)])}
    assert compare_weights(base, DELTAS, write(tmp_path / "padded", padded)).rows == (50, 56)
    less = {name: tensor for name, tensor in BASE.items() if name != NORM}
    assert compare_weights(base, DELTAS, write(tmp_path / "less", less)).absent == (NORM,)


def test_unknown_names_cannot_be_compared(tmp_path: Path) -> None:
    other = write(tmp_path / "other", {"transformer.h.0.attn": draw(4, 4, seed=1)})
    assert compare_weights(write(tmp_path / "base", BASE), DELTAS, other) is None
    assert open_tensors(tmp_path) is None


def test_names_of_gguf_tensors() -> None:
    assert checkpoint_name("blk.3.attn_q.weight", "qwen2") == "model.layers.3.self_attn.q_proj.weight"
    assert (
        checkpoint_name("blk.0.ffn_norm.weight", "gemma3")
        == "model.layers.0.pre_feedforward_layernorm.weight"
    )
    assert checkpoint_name("output.weight", "llama") == "lm_head.weight"
    assert checkpoint_name("rope_freqs.weight", "llama") is None


def test_rows_that_the_converter_interleaves() -> None:
    """As in llama.cpp's LlamaModel.permute: reshape(heads, 2, half, ...).swapaxes(1, 2)."""
    import numpy as np

    from kmmlu_fast.models.gguf import GgufFile, GgufTensor
    from kmmlu_fast.shipping.tensors import GgufTensors

    heads, half = 3, 4
    rows = np.arange(heads * 2 * half)
    stored = rows.reshape(heads, 2, half).swapaxes(1, 2).reshape(-1)  # original row of every stored one
    tensor = GgufTensor(name="blk.0.attn_q.weight", shape=(len(rows), 8), type_id=0, start=0)
    source = object.__new__(GgufTensors)
    metadata = {"general.architecture": "llama", "llama.attention.head_count": heads}
    source._file = GgufFile(Path("x"), metadata, (tensor,))
    source._tensors = {f"{Q}.weight": tensor}
    assert stored[source._permuted_rows(f"{Q}.weight", rows)].tolist() == rows.tolist()


def test_a_module_whose_factors_are_zero_is_not_changed(tmp_path: Path) -> None:
    still = {**DELTAS, K: LoraDelta(draw(2, 32, seed=7), torch.zeros(16, 2), 0.1)}
    found = compare_weights(write(tmp_path / "base", BASE), still, write(tmp_path / "merged", BASE))
    assert [each.name for each in found.changed] == [f"{Q}.weight"]


def sixteen_bit(factor: float, size: float) -> tuple[dict[str, Any], dict[str, Any], dict[str, LoraDelta]]:
    """A bfloat16 base, a bfloat16 merge of ``factor`` times a change of ``size`` (relative), the change."""
    base = {name: tensor.bfloat16() for name, tensor in BASE.items()}
    deltas = {m: LoraDelta(delta.down, delta.up, size / 1.4) for m, delta in DELTAS.items()}
    merged = dict(base)
    for module, delta in deltas.items():
        change_of_module = factor * delta.scale * (delta.up @ delta.down)
        merged[f"{module}.weight"] = (base[f"{module}.weight"].float() + change_of_module).bfloat16()
    return base, merged, deltas


@pytest.mark.parametrize(("size", "low", "high"), [(0.0015, 0.3, 0.9), (0.1, 0.98, 1.02)])
def test_what_rounding_keeps_is_predicted_module_by_module(
    tmp_path: Path, size: float, low: float, high: float
) -> None:
    base, merged, deltas = sixteen_bit(1.0, size)
    found = compare_weights(write(tmp_path / "base", base), deltas, write(tmp_path / "merged", merged))
    for each in found.changed:
        assert low < each.slope < high and each.slope == pytest.approx(each.kept, abs=1e-4)
        assert each.scale == 1.0
    assert found.kept.is_enough == (size > 0.01)


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0, -1.0])
def test_a_planted_scale_is_found_under_rounding(tmp_path: Path, factor: float) -> None:
    base, merged, deltas = sixteen_bit(factor, 0.002)
    found = compare_weights(write(tmp_path / "base", base), deltas, write(tmp_path / "merged", merged))
    assert [each.scale for each in found.changed] == pytest.approx([factor, factor], abs=0.06)


def test_a_float32_copy_of_a_16_bit_merge_was_rounded_too(tmp_path: Path) -> None:
    base, merged, deltas = sixteen_bit(1.0, 0.0015)
    copy = {name: tensor.float() for name, tensor in merged.items()}
    found = compare_weights(write(tmp_path / "base", base), deltas, write(tmp_path / "copy", copy))
    assert all(each.scale == 1.0 and each.kept < 0.9 for each in found.changed)


def test_factors_of_a_multimodal_checkpoint_find_their_weights(tmp_path: Path) -> None:
    deltas = {name.replace("model.", "model.language_model.", 1): delta for name, delta in DELTAS.items()}
    merged = {**BASE, **{f"{m}.weight": BASE[f"{m}.weight"] + change(m) for m in (Q, K)}}
    found = compare_weights(write(tmp_path / "base", BASE), deltas, write(tmp_path / "merged", merged))
    assert len(found.changed) == 2
