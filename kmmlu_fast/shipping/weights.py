"""Compares an artefact's weights with base + adapter, module by module, without running either.

In: the base's directory, the adapter's factors, an artefact (a model directory or a GGUF file). Out:
``WeightComparison``: for every changed module the slope of (artefact - base) on s·B·A (1: applied, 0: not,
2: twice), and the slope that rounding a right merge would give; for every other tensor how far it is from the
base. Quantisation noise averages out over a matrix, so slopes are exact even in 4 bit, unless the base lies
on the type's own grid. Knows nothing of questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.models.deltas import LoraDelta
from kmmlu_fast.shipping.rounding import KeptChange, find_applied_scale, find_grid, measure_kept_share
from kmmlu_fast.shipping.tensors import TensorSource, open_tensors, plain_name

_MOST_VALUES = 1 << 22  # of a matrix that are compared: whole rows, evenly spaced
STORED_GRIDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """One tensor of the artefact against the reference. ``slope`` is None if the adapter does not change it.

    ``residual``: root mean square of artefact - (base + slope·s·B·A), relative to the base's;
    ``slope_error``: the slope's standard error, from the residual. ``kept``: the slope that a right merge has
    after rounding (1 for quantised types, whose rounding is not computed here); ``scale``: the factor of the
    change that, rounded alike, gives ``slope``; ``power``: sum of the change's squares.
    """

    name: str
    stored_as: str
    slope: float | None
    slope_error: float
    residual: float
    kept: float = 1.0
    scale: float | None = None
    power: float = 1.0

    @property
    def is_exact(self) -> bool:
        """Whether the type keeps weights to 16 bits or better."""
        return self.stored_as in STORED_GRIDS


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightComparison:
    """All compared tensors, and what could not be compared."""

    differences: tuple[TensorDifference, ...]
    absent: tuple[str, ...]  # tensors of the base that the artefact lacks
    extra_head: bool  # an output layer of its own where the base's is tied
    rows: tuple[int, int] | None  # of the embedding: base, artefact, if they differ
    shapes: tuple[str, ...]  # names of tensors with other shapes
    float32_bytes: int = 0  # of a copy of the base in float32

    @property
    def changed(self) -> list[TensorDifference]:
        """The modules that the adapter changes."""
        return [each for each in self.differences if each.slope is not None]

    @property
    def unchanged(self) -> list[TensorDifference]:
        return [each for each in self.differences if each.slope is None]

    @property
    def kept(self) -> KeptChange | None:
        """What the artefact holds of the adapter's change; None if that was not measured."""
        return sum_up_shares([(float(each.slope or 0.0), each.power) for each in self.changed])


def sum_up_shares(shares: list[tuple[float, float]]) -> KeptChange | None:
    """Shares of modules, each with its change's power, which weighs it in the whole."""
    shares = [(share, power) for share, power in shares if power]
    if not shares:
        return None
    whole = sum(share * power for share, power in shares) / sum(power for _, power in shares)
    low, high = min(share for share, _ in shares), max(share for share, _ in shares)
    return KeptChange(modules=len(shares), low=low, high=high, share=whole)


def compare_weights(base: Path, deltas: Mapping[str, LoraDelta], artefact: Path) -> WeightComparison | None:
    """The comparison; None if the artefact's names cannot be mapped to the base's."""
    reference, other = open_tensors(base), open_tensors(artefact, base)
    if reference is None or other is None or not set(reference.names) & set(other.names):
        return None
    changes = {plain_name(module): delta for module, delta in deltas.items()}
    differences, shapes, rows = [], [], None
    for name in reference.names:
        if name not in other.names:
            continue
        shape, other_shape = reference.shape(name), other.shape(name)
        if shape != other_shape:
            if "embed_tokens" in name and shape[1:] == other_shape[1:]:
                rows = (shape[0], other_shape[0])
            elif "lm_head" not in name:
                shapes.append(name)
            continue
        differences.append(_compare_tensor(name, reference, other, changes.get(name.removesuffix(".weight"))))
    absent = [name for name in reference.names if name not in other.names and "lm_head" not in name]
    extra_head = "lm_head.weight" in other.names and "lm_head.weight" not in reference.names
    if extra_head and "lm_head" not in changes:
        # An untied copy of the embedding is the same head.
        extra_head = not _is_copy(other, "lm_head.weight", "model.embed_tokens.weight")
    return WeightComparison(
        differences=tuple(differences),
        absent=tuple(absent),
        extra_head=extra_head,
        rows=rows,
        shapes=tuple(shapes),
        float32_bytes=sum(4 * math.prod(reference.shape(name)) for name in reference.names),
    )


def _compare_tensor(
    name: str, reference: TensorSource, other: TensorSource, delta: LoraDelta | None
) -> TensorDifference:
    import numpy as np

    rows = sampled_rows(reference.shape(name))
    base, values = reference.read(name, rows), other.read(name, rows)
    change = None if delta is None else change_of_rows(delta, rows)
    difference = values - base
    scale = max(_rms(base), 1e-12)
    power = 0.0 if change is None else float(np.vdot(change, change))
    stored_as = other.stored_as(name)
    if change is None or not power:  # a module whose B is zero is not changed
        residual = _rms(difference) / scale
        return TensorDifference(
            name=name, stored_as=stored_as, slope=None, slope_error=0.0, residual=residual
        )
    slope = float(np.vdot(difference, change)) / power
    residual = _rms(difference - slope * change)
    kept, applied = 1.0, slope
    if stored_as in STORED_GRIDS:
        grid = find_grid(values)
        kept = measure_kept_share(base, change, grid)
        applied = find_applied_scale(base, change, grid, slope, kept)
    return TensorDifference(
        name=name,
        stored_as=stored_as,
        slope=slope,
        slope_error=residual / math.sqrt(power),
        residual=residual / scale,
        kept=kept,
        scale=applied,
        power=whole_power(change, reference.shape(name)),
    )


def whole_power(change: Any, shape: tuple[int, ...]) -> float:
    """The sum of squares of a matrix's change, from its sampled rows."""
    return float((change**2).sum()) * shape[0] / max(1, len(change))


def sampled_rows(shape: tuple[int, ...]) -> Any:
    import numpy as np

    width = math.prod(shape[1:]) if len(shape) > 1 else 1
    most = max(1, _MOST_VALUES // max(1, width))
    step = max(1, -(-shape[0] // most))
    return np.arange(0, shape[0], step)


def change_of_rows(delta: LoraDelta, rows: Any) -> Any:
    up = delta.up.float().numpy()[rows]
    return (up @ delta.down.float().numpy()) * delta.scale


def _rms(values: Any) -> float:
    import numpy as np

    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def _is_copy(source: TensorSource, first: str, second: str) -> bool:
    if second not in source.names or source.shape(first) != source.shape(second):
        return False
    rows = sampled_rows(source.shape(first))
    one, two = source.read(first, rows), source.read(second, rows)
    return _rms(one - two) <= 0.02 * _rms(two)
