"""The best of several adapters, freed from the luck of having been chosen.

In: the differences from one base that were tried, with their errors. Out: an estimate of the best one's true
difference, shrunk to the mean of all. Pure. Knows nothing of runs.

The largest of several differences is too large on average. With d_k = mean + adapter_k + noise_k + base noise
(the base's luck is in all of them alike), the method of moments estimates the adapters' variance as
var(d_k) - var(noise_k); the best is shrunk by the share of the variance that is not noise (empirical Bayes:
Efron and Morris 1975, JASA 70:311). The interval includes the base's noise and the estimated mean's error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kmmlu_fast.analysis.strata import IntervalEstimate

FEWEST = 3  # tried; with fewer, their variance cannot be estimated
SHARED = 0.5  # share of a difference's variance that is the base's, if the answers of both are alike noisy
_Z = 1.959963984540054


def shrink_best(differences: Sequence[float], errors: Sequence[float]) -> IntervalEstimate | None:
    """The largest difference, shrunk; None if too few were tried or an error is unknown. ``errors``: standard
    errors of the differences.
    """
    values, variances = np.asarray(differences, dtype=float), np.asarray(errors, dtype=float) ** 2
    if len(values) < FEWEST or not (variances > 0).all():
        return None
    best = int(values.argmax())
    own, common = float(variances.mean() * (1 - SHARED)), float(variances[best] * SHARED)
    between = max(0.0, float(values.var(ddof=1)) - own)
    keep = between / (between + own)
    value = float(values.mean() + keep * (values[best] - values.mean()))
    # the adapters' variance is itself estimated (Morris 1983, JASA 78:47)
    unsure = 2 / (len(values) - 1) * (1 - keep) ** 2 * float((values[best] - values.mean()) ** 2)
    variance = common + own * (keep + (1 - keep) / len(values)) + unsure
    half = _Z * variance**0.5
    return IntervalEstimate(value, value - half, value + half)
