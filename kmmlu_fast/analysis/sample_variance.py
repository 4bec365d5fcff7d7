"""Accuracy of k samples per question (avg@k), and its two sources of variance apart.

In: for each question, how many of its k answers were right. Out: ``SampledAccuracy``, plain numbers. Knows
nothing of runs or words.

Question i is answered rightly with probability p_i; of k samples, x_i are right; y_i = x_i / k. avg@k is the
mean of the y_i. Closed form (one-way random effects, unbalanced designs aside):

* sampling: within = mean of k/(k-1) y_i (1 - y_i) estimates the mean of p_i (1 - p_i), unbiased; asked again,
  these questions would give avg@k +- sqrt(within / (n k)).
* questions: s^2, the variance of the y_i over questions, estimates var(p) + mean(p_i (1 - p_i)) / k; so
  between = s^2 - within / k estimates var(p), unbiased. Other questions like these, sampled anew, would give
  avg@k +- sqrt(s^2 / n): both sources.

Intervals are 95 %: Student's t with n - 1 degrees for other questions, normal for these. A few questions
with the largest variance, 1/4, are mixed in (two into that of sampling, half a question into that of
questions), so that no interval is a point. Coverage is simulated in ``bench.sample_worlds``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
_PSEUDO = 2.0  # questions with a variance of 1/4


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledAccuracy:
    """avg@k; variances are of one answer, intervals of the mean."""

    samples: int  # k
    questions: int
    accuracy: float
    low: float  # for questions like these, sampled anew
    high: float
    sampling_low: float | None  # for these questions, sampled anew; None for one sample each
    sampling_high: float | None
    question_variance: float | None  # of p_i
    sampling_variance: float | None  # mean of p_i (1 - p_i)

    @property
    def sampling_share(self) -> float | None:
        """Share of avg@k's variance that more samples would remove."""
        if self.question_variance is None or self.sampling_variance is None:
            return None
        own = self.sampling_variance / self.samples
        total = own + self.question_variance
        return own / total if total > 0 else 0.0


def estimate_sampled_accuracy(right: NDArray[np.int64], samples: int) -> SampledAccuracy:
    """``right``: of each question's ``samples`` answers, the number that are right; two questions or more."""
    from scipy.special import stdtrit

    n = len(right)
    shares = np.asarray(right, dtype=float) / samples
    accuracy = float(shares.mean())
    spread = float(shares.var(ddof=1)) if n > 1 else 0.25
    half = float(stdtrit(max(1, n - 1), 0.975)) * (_smooth(spread, n, _PSEUDO / 4) / n) ** 0.5
    sampled: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    if samples > 1:
        within = float((shares * (1 - shares)).mean()) * samples / (samples - 1)
        own = Z * (_smooth(within, n, _PSEUDO) / (n * samples)) ** 0.5
        between = max(0.0, spread - within / samples)
        sampled = (max(0.0, accuracy - own), min(1.0, accuracy + own), between, within)
    return SampledAccuracy(
        samples=samples,
        questions=n,
        accuracy=accuracy,
        low=max(0.0, accuracy - half),
        high=min(1.0, accuracy + half),
        sampling_low=sampled[0],
        sampling_high=sampled[1],
        question_variance=sampled[2],
        sampling_variance=sampled[3],
    )


def _smooth(variance: float, questions: int, pseudo: float) -> float:
    return (variance * questions + 0.25 * pseudo) / (questions + pseudo)
