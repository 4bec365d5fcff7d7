"""One run's log-probabilities without its temperature and its letter habit.

In: the key's letters and a run's log-probabilities of the letters. Out: the same, recalibrated. Pure. Knows
nothing of pairs or runs.

Training sharpens or cools a model and moves its letter habit; both move its log score, though it knows no
more. So z = temperature x logprob + one offset per letter is fitted to the key (multinomial logistic
regression; Platt scaling, with the offsets of Guo et al. 2017, ICML) on one half of the questions and applied
to the other half, and the other way round: no question is scored with a fit that saw its key.
"""

from __future__ import annotations

import numpy as np

from kmmlu_fast.analysis.softmax import log_softmax_last_axis
from kmmlu_fast.analysis.strata import Codes, Floats

FEWEST = 50  # questions; with fewer nothing is fitted
_RIDGE = 1e-3


def recalibrate_logprobs(key: Codes, logprobs: Floats) -> Floats:
    """(n, options), -inf for options that a question does not have; unchanged with fewer than ``FEWEST``
    questions.
    """
    if len(key) < FEWEST:
        return logprobs
    half = np.random.default_rng(0).random(len(key)) < 0.5
    result = np.empty_like(logprobs)
    for fold in (half, ~half):
        result[fold] = _apply_fit(logprobs[fold], _fit(key[~fold], logprobs[~fold]))
    return result


def _apply_fit(logprobs: Floats, weights: Floats) -> Floats:
    scaled = np.where(
        np.isfinite(logprobs), weights[0] * np.where(np.isfinite(logprobs), logprobs, 0.0), -np.inf
    )
    return np.asarray(log_softmax_last_axis(scaled + np.append(weights[1:], 0.0)))


def _fit(key: Codes, logprobs: Floats) -> Floats:
    """Temperature and the offsets of all letters but the last, by Newton steps on a concave likelihood."""
    count = logprobs.shape[1]
    known = np.where(np.isfinite(logprobs), logprobs, 0.0)
    weights = np.zeros(count)
    weights[0] = 1.0
    right = np.eye(count)[key]
    value = _log_likelihood(key, logprobs, weights)
    for _ in range(20):
        shares = np.exp(_apply_fit(logprobs, weights))
        mean = (shares * known).sum(axis=1)
        slope = np.append((right * known).sum() - mean.sum(), (right - shares)[:, :-1].sum(axis=0))
        curve = np.empty((count, count))
        curve[0, 0] = (shares * known**2).sum() - (mean**2).sum()
        curve[0, 1:] = curve[1:, 0] = (shares * (known - mean[:, None]))[:, :-1].sum(axis=0)
        curve[1:, 1:] = np.diag(shares[:, :-1].sum(axis=0)) - shares[:, :-1].T @ shares[:, :-1]
        step = np.linalg.solve(curve + _RIDGE * np.eye(count), slope)
        size = 1.0
        while size > 1e-4:
            tried = _log_likelihood(key, logprobs, weights + size * step)
            if tried >= value:
                break
            size /= 2
        else:
            break
        weights, value = weights + size * step, tried
        if np.abs(step).max() < 1e-6:
            break
    return weights


def _log_likelihood(key: Codes, logprobs: Floats, weights: Floats) -> float:
    return float(_apply_fit(logprobs, weights)[np.arange(len(key)), key].sum())
