"""How much of an adapter's change survives rounding: the slope of round(W + s·B·A) - W on s·B·A.

A change smaller than half a step of the type, added to weights that lie on the type's grid, is rounded away.
In: arrays of weights and changes, a type. Out: shares, 1 if all survives. Knows nothing of files or answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

GRIDS = ("bfloat16", "float16", "float32")  # coarsest first
ENOUGH_KEPT = 0.95  # below it, rounding is worth a warning
_STEPS = 9  # of the search for a scale
_MOST_SCALE = 128.0
_CLOSE = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptChange:
    """The share of the adapter's change that weights hold: of the worst and best module, and of all."""

    modules: int
    low: float
    high: float
    share: float

    @property
    def is_enough(self) -> bool:
        return ENOUGH_KEPT <= self.share <= 2 - ENOUGH_KEPT

    def describe(self) -> str:
        """Such as ``78 % of the adapter's change (66 to 94 % by module)``, or ``1.33 times`` it: a coarse
        type turns a change that is smaller than its steps into whole steps.
        """
        if self.share > 2 - ENOUGH_KEPT:
            span = f" ({max(0.0, self.low):.2f} to {self.high:.2f} times by module)"
            return f"{self.share:.2f} times the adapter's change{span if self.low != self.high else ''}"
        whole, low, high = (f"{100 * max(0.0, value):.0f}" for value in (self.share, self.low, self.high))
        by_module = "" if low == high else f" ({low} to {high} % by module)"
        return f"{whole} % of the adapter's change{by_module}"


def round_to_grid(values: Any, kind: str) -> Any:
    """The nearest numbers of ``kind``, as float32."""
    import torch

    if kind == "float32":
        return values
    return torch.from_numpy(values).to(getattr(torch, kind)).float().numpy()


def find_grid(values: Any) -> str:
    """The coarsest type that holds all values exactly: what they were rounded to, whatever stores them."""
    return next(kind for kind in GRIDS if (round_to_grid(values, kind) == values).all())


def measure_kept_share(weights: Any, change: Any, kind: str) -> float:
    """The slope on ``change`` of what remains of it in ``weights`` + ``change``, rounded to ``kind``."""
    import numpy as np

    power = float(np.vdot(change, change))
    if not power:
        return 1.0
    return float(np.vdot(round_to_grid(weights + change, kind) - weights, change)) / power


def find_applied_scale(weights: Any, change: Any, kind: str, slope: float, kept: float) -> float:
    """The factor of ``change`` that, rounded to ``kind``, gives ``slope``; ``kept``: the share at 1."""
    if abs(slope - kept) < _CLOSE:
        return 1.0
    if abs(slope) < _CLOSE or kept < _CLOSE:
        return slope
    sign, target = math.copysign(1.0, slope), abs(slope)

    def reached(factor: float) -> float:
        return factor * measure_kept_share(weights, sign * factor * change, kind)

    low, high = 0.0, 1.0
    while reached(high) < target and high < _MOST_SCALE:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < target else (low, middle)
    return sign * (low + high) / 2
