"""Means over strata with a valid error even for small samples: subjects are fixed, their questions vary.

In: counts, sums and sums of squares by stratum, or one value per question; each stratum's weight in the mean;
the share of the population that was asked. Out: ``Estimate`` (value, standard error, degrees of freedom,
interval, p). Pure. Knows nothing of runs.

* variance within a stratum divides by n - 1; strata of one question are collapsed into one (Saerndal,
  Swensson and Wretman 1992, Model Assisted Survey Sampling, 3.7), because one value has no variance of its
  own: dividing by n would give an interval of width zero.
* the interval is Student's, with Satterthwaite's degrees of freedom.
* ``asked`` is the sampled share of each stratum's questions. With it the interval refers to *these*
  questions: the finite population correction makes its width zero if all were asked. Without it the interval
  refers to questions like these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        return not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error, in the values' own unit. ``df``: degrees of freedom of the error."""

    value: float
    error: float
    df: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Student's interval; (value, value) if the error is 0."""
        from scipy.special import stdtrit

        half = float(stdtrit(max(self.df, 1.0), 0.5 + level / 2)) * self.error if self.error > 0 else 0.0
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """Two-sided p of "the mean is 0"; 1 for an exact 0."""
        from scipy.special import stdtr

        if self.error <= 0:
            return 1.0 if abs(self.value) < 1e-15 else 0.0
        return float(2 * stdtr(max(self.df, 1.0), -abs(self.value) / self.error))


def stratified_mean_of_sums(
    n: Floats, sums: Floats, squares: Floats, weights: Floats, asked: Floats | None = None
) -> Estimate:
    """Weighted mean of the strata's means from their sizes (all > 0), sums and sums of squares; ``weights``
    sum to 1.
    """
    means = sums / n
    alone = n < 2
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.where(alone, 0.0, np.maximum(squares - sums * means, 0.0) / (n - 1))
    freedom = np.where(alone, 1.0, n - 1)
    if alone.any():
        # The strata of one question are collapsed into one; a single such stratum takes the variance of all
        # questions.
        pooled = alone if alone.sum() > 1 else np.ones_like(alone)
        size = float(n[pooled].sum())
        spread = float(squares[pooled].sum() - sums[pooled].sum() ** 2 / size) / max(size - 1, 1.0)
        within = np.where(alone, max(spread, 0.0), within)
        freedom = np.where(alone, (size - 1) / max(alone.sum(), 1), freedom)
    parts = weights**2 * within / n
    if asked is not None:
        parts = parts * np.clip(1.0 - asked, 0.0, 1.0)
    variance = float(parts.sum())
    df = float(n.sum() - len(n)) or 1.0
    if variance > 0:
        df = variance**2 / float((parts**2 / np.maximum(freedom, 1e-9)).sum())
    return Estimate(float(weights @ means), variance**0.5, df)


def stratified_mean(
    values: Floats, strata: Codes, weights: Floats | None = None, asked: Floats | None = None
) -> Estimate:
    """``stratified_mean_of_sums`` of one value per question; ``strata`` 0..H-1 without gaps; ``weights`` by
    stratum, default its share of questions.
    """
    n = np.bincount(strata).astype(float)
    weights = n / n.sum() if weights is None else weights
    sums, squares = (np.bincount(strata, column).astype(float) for column in (values, values**2))
    return stratified_mean_of_sums(n, sums, squares, weights, asked)


def question_weights(strata: Codes, weights: Floats | None = None) -> Floats:
    """Each question's weight in the mean; they sum to 1. ``weights`` by stratum, default its share of
    questions.
    """
    n = np.bincount(strata).astype(float)
    return np.asarray((n / n.sum() if weights is None else weights) / n)[strata]
