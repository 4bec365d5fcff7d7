"""Compares an artefact's weights with base + adapter, module by module, without running either.

In: the base's directory, the adapter's factors, an artefact (a model directory or a GGUF file). Out:
``WeightComparison``: for every changed module the slope of (artefact - base) on s·B·A (1: applied, 0: not, 2:
twice), for every other tensor how far it is from the base. Quantisation noise averages out over a matrix, so
the slopes are exact even in 4 bit. Knows nothing of questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.models.deltas import LoraDelta
from kmmlu_fast.shipping.tensors import TensorSource, open_tensors

_MOST_VALUES = 1 << 22  # of a matrix that are compared: whole rows, evenly spaced
_EXACT_TYPES = ("F32", "F16", "BF16", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """One tensor of the artefact against the reference. ``slope`` is None if the adapter does not change it.

    ``residual``: root mean square of artefact - (base + slope·s·B·A), relative to the base's;
    ``slope_error``: the slope's standard error, from the residual.
    """

    name: str
    stored_as: str
    slope: float | None
    slope_error: float
    residual: float

    @property
    def is_exact(self) -> bool:
        """Whether the type keeps weights to 16 bits or better."""
        return self.stored_as in _EXACT_TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightComparison:
    """All compared tensors, and what could not be compared."""

    differences: tuple[TensorDifference, ...]
    absent: tuple[str, ...]  # tensors of the base that the artefact lacks
    extra_head: bool  # an output layer of its own where the base's is tied
    rows: tuple[int, int] | None  # of the embedding: base, artefact, if they differ
    shapes: tuple[str, ...]  # names of tensors with other shapes

    @property
    def changed(self) -> list[TensorDifference]:
        """The modules that the adapter changes."""
        return [each for each in self.differences if each.slope is not None]

    @property
    def unchanged(self) -> list[TensorDifference]:
        return [each for each in self.differences if each.slope is None]


def compare_weights(base: Path, deltas: Mapping[str, LoraDelta], artefact: Path) -> WeightComparison | None:
    """The comparison; None if the artefact's names cannot be mapped to the base's."""
    reference, other = open_tensors(base), open_tensors(artefact, base)
    if reference is None or other is None or not set(reference.names) & set(other.names):
        return None
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
        differences.append(_compare_tensor(name, reference, other, deltas.get(name.removesuffix(".weight"))))
    absent = [name for name in reference.names if name not in other.names and "lm_head" not in name]
    extra_head = "lm_head.weight" in other.names and "lm_head.weight" not in reference.names
    if extra_head and "lm_head" not in deltas:
        # An untied copy of the embedding is the same head.
        extra_head = not _is_copy(other, "lm_head.weight", "model.embed_tokens.weight")
    return WeightComparison(
        differences=tuple(differences),
        absent=tuple(absent),
        extra_head=extra_head,
        rows=rows,
        shapes=tuple(shapes),
    )


def _compare_tensor(
    name: str, reference: TensorSource, other: TensorSource, delta: LoraDelta | None
) -> TensorDifference:
    import numpy as np

    rows = _sampled_rows(reference.shape(name))
    base, values = reference.read(name, rows), other.read(name, rows)
    change = None if delta is None else _change_of_rows(delta, rows)
    difference = values - base
    residual = difference
    scale = max(_rms(base), 1e-12)
    slope, slope_error = None, 0.0
    if change is not None:
        power = float(np.vdot(change, change))
        slope = float(np.vdot(difference, change)) / power if power else math.nan
        residual = difference - slope * change if power else difference
        slope_error = _rms(residual) / math.sqrt(power) if power else math.inf
    return TensorDifference(
        name=name,
        stored_as=other.stored_as(name),
        slope=slope,
        slope_error=slope_error,
        residual=_rms(residual) / scale,
    )


def _sampled_rows(shape: tuple[int, ...]) -> Any:
    import numpy as np

    width = math.prod(shape[1:]) if len(shape) > 1 else 1
    most = max(1, _MOST_VALUES // max(1, width))
    step = max(1, -(-shape[0] // most))
    return np.arange(0, shape[0], step)


def _change_of_rows(delta: LoraDelta, rows: Any) -> Any:
    up = delta.up.float().numpy()[rows]
    return (up @ delta.down.float().numpy()) * delta.scale


def _rms(values: Any) -> float:
    import numpy as np

    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def _is_copy(source: TensorSource, first: str, second: str) -> bool:
    if second not in source.names or source.shape(first) != source.shape(second):
        return False
    rows = _sampled_rows(source.shape(first))
    one, two = source.read(first, rows), source.read(second, rows)
    return _rms(one - two) <= 0.02 * _rms(two)
