"""Softmax over the last axis, stable for any numbers. In: arrays of natural logarithms. Out: arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_sum_exp(values: Floats) -> Floats:
    """log(sum(exp(values))), one axis fewer."""
    top = values.max(axis=-1)
    return np.asarray(top + np.log(np.exp(values - top[..., None]).sum(axis=-1)))


def log_softmax_last_axis(values: Floats) -> Floats:
    """Log-probabilities, given that the answer is one of these; -inf stays -inf."""
    return np.asarray(values - log_sum_exp(values)[..., None])


def softmax_last_axis(values: Floats) -> Floats:
    """Shares that sum to 1."""
    return np.exp(log_softmax_last_axis(values))
