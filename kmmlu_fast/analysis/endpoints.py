"""More than right or wrong: how sure a run was of the key, paired with another run's.

In: the key's letters and two runs' log-probabilities of the letters (natural, A first). Out: one ``Endpoint``
per score: means and their paired difference. Knows nothing of runs, files or words. Log-probabilities are
renormalised over the question's letters, so that their probabilities sum to 1.

* ``log_score``: mean log-probability of the key (nats; higher is better). A strictly proper score. It detects
  more than right or wrong does, because it changes even if the answer does not.
* ``brier``: mean squared distance of the probabilities from 1 for the key and 0 for the others (0-2; lower is
  better; Brier 1950).
* both with each run's temperature and overall letter habit fitted out (``recalibration``): those move them
  too, though the model knows no more.
* ``overconfidence``: as the run stated it; mean confidence minus accuracy (0 = calibrated on average; above
  0 = overconfident).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kmmlu_fast.analysis.recalibration import recalibrate_logprobs
from kmmlu_fast.analysis.softmax import log_softmax_last_axis
from kmmlu_fast.analysis.strata import Codes, Floats, stratified_mean

MIN_SHARE = 0.99  # of the questions must have log-probabilities in both runs
FLOOR = -30.0  # nats; for a letter that the engine did not return


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Second minus first in the endpoint's own unit, with 95 % interval and two-sided p."""

    name: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    higher_is_better: bool

    @property
    def better(self) -> int:
        """1: significantly better, -1: worse, 0: not shown."""
        if self.low <= 0.0 <= self.high:
            return 0
        return 1 if (self.difference > 0) == self.higher_is_better else -1


def compare_endpoints(
    key: Codes,
    strata: Codes,
    first: Floats,
    second: Floats,
    weights: Floats | None = None,
    asked: Floats | None = None,
    options: Codes | None = None,
) -> tuple[Endpoint, ...]:
    """The endpoints; () if too few questions have log-probabilities.

    ``first``, ``second``: (n, options), NaN rows without log-probabilities; ``weights`` and ``asked`` by
    stratum, as in ``strata.stratified_mean_of_sums``; ``options``: (n,) the question's options, default all.
    """
    known = np.isfinite(first).any(axis=1) & np.isfinite(second).any(axis=1)
    if len(key) < 2 or known.mean() < MIN_SHARE:
        return ()
    one, other = (
        [np.where(known, column, 0.0) for column in _endpoint_scores(key, logprobs, options)]
        for logprobs in (first, second)
    )
    endpoints = []
    names = ("log_score", "brier", "overconfidence")
    for name, left, right in zip(names, one, other, strict=True):
        change = stratified_mean(right - left, strata, weights, asked)
        low, high = change.interval()
        before, after = (stratified_mean(values, strata, weights).value for values in (left, right))
        endpoints.append(
            Endpoint(
                name=name,
                first=before,
                second=after,
                difference=change.value,
                low=low,
                high=high,
                p_value=change.p_value,
                higher_is_better=name == "log_score",
            )
        )
    return tuple(endpoints)


def _endpoint_scores(key: Codes, logprobs: Floats, options: Codes | None = None) -> list[Floats]:
    """Log score, Brier score, and confidence minus right (0 or 1), each by question."""
    values = np.maximum(np.nan_to_num(logprobs, nan=FLOOR, neginf=FLOOR), FLOOR)
    if options is not None:
        values = np.where(np.arange(values.shape[1]) < options[:, None], values, -np.inf)
    values = log_softmax_last_axis(values)
    own = np.exp(values)
    fitted = recalibrate_logprobs(key, values)
    shares = np.exp(fitted)
    rows = np.arange(len(key))
    brier = (shares**2).sum(axis=1) - 2 * shares[rows, key] + 1
    return [fitted[rows, key], brier, own.max(axis=1) - (own.argmax(axis=1) == key)]
