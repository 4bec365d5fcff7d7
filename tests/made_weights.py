"""Invented comparisons of weights for the tests of release diagnoses."""

from dataclasses import replace
from typing import Any

from kmmlu_fast.shipping.weights import TensorDifference, WeightComparison

Q, K, NORM = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.norm.weight",
)


def tensor(
    name: str, slope: float | None = None, residual: float = 0.001, stored_as: str = "BF16"
) -> TensorDifference:
    return TensorDifference(name=name, stored_as=stored_as, slope=slope, slope_error=0.001, residual=residual)


def weights(*differences: TensorDifference, **facts: Any) -> WeightComparison:
    values: dict[str, Any] = {"absent": (), "extra_head": False, "rows": None, "shapes": (), **facts}
    return WeightComparison(differences=differences, **values)


def on_grid(name: str, kept: float, scale: float = 1.0) -> TensorDifference:
    """A 16-bit module of which rounding keeps ``kept`` of the adapter's change at scale 1."""
    slope = scale * kept
    return replace(tensor(name, slope), kept=kept, scale=scale)
