"""Offsets that give a run the key's letter shares: a common letter prior, by log-probabilities.

In: the key's letters, a run's letters and their log-probabilities (natural), same question order, every
question with the same number of options. Out: one offset per letter; the letters with these offsets
(``MatchedLetters``), with each question's part in their accuracy, the offsets' own error included. Knows
nothing of pairs, runs or words.

Offsets on log-probabilities are a change of class prior (Saerens, Latinne and Decaestecker 2002, Neural
Computation 14:21; used for multiple choice by Zheng et al. 2024, "Large Language Models Are Not Robust
Multiple Choice Selectors", and as batch calibration by Zhou et al. 2024). Fitting is convex: minimise mean_i
tau * logsumexp((logprob_i + offset) / tau) - share . offset, whose gradient is "soft share minus target
share", with tau lowered until soft shares are argmax shares. Only the key's shares are used, never a
question's answer. The error is by the delta method, with a kernel estimate of how shares and accuracy depend
on the offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.analysis.softmax import log_sum_exp, softmax_last_axis
from kmmlu_fast.analysis.strata import Codes, Floats

MIN_LOGPROB_SHARE = 0.99  # of the questions must have log-probabilities
SHRINKAGE = 100  # weight of the global offsets in a subject's own, in questions
_TEMPERATURES = (1.0, 0.3, 0.1, 0.03, 0.01)

Letters = NDArray[np.int64]  # 0 for A, 1 for B, ...; -1 for unparsed
Logprobs = NDArray[np.float64]  # (n, options); NaN rows if missing


@dataclass(frozen=True, slots=True)
class MatchedLetters:
    """A run's letters with the key's letter shares, and each question's part in their accuracy, the offsets'
    error included.
    """

    letters: Letters
    contributions: Floats  # mean = the matched accuracy, to first order
    # the same with each subject's own shares, shrunk to the global ones; None with a single subject
    by_subject: tuple[Letters, Floats] | None = None


def match_letter_shares(
    key: Letters,
    letters: Letters,
    logprobs: Logprobs | None,
    strata: Codes | None = None,
    weights: Floats | None = None,
) -> MatchedLetters | None:
    """The run's letters with the key's letter shares; None if it has too few log-probabilities.

    Questions without log-probabilities, and unparsed answers, keep their letter. ``strata``: subjects, for
    ``by_subject``; ``weights``: of the questions, summing to 1.
    """
    if logprobs is None or len(logprobs) == 0:
        return None
    known = np.isfinite(logprobs).all(axis=1)
    if known.mean() < MIN_LOGPROB_SHARE:
        return None
    known &= letters >= 0
    weights = np.full(len(key), 1 / len(key)) if weights is None else weights
    shares = np.bincount(key[known], weights[known], minlength=logprobs.shape[1]).astype(float)
    offsets = fit_prior_offsets(logprobs[known], shares, weights[known])
    result, parts = _apply_offsets(key, letters, logprobs, known, offsets, weights)
    by_subject = None
    if strata is not None and strata.max(initial=0) > 0:
        by_subject = _match_by_subject(key, letters, logprobs, known, strata, offsets, result, parts)
    return MatchedLetters(result, parts, by_subject)


def _match_by_subject(
    key: Letters,
    letters: Letters,
    logprobs: Logprobs,
    known: NDArray[np.bool_],
    strata: Codes,
    offsets: Floats,
    result: Letters,
    parts: Floats,
) -> tuple[Letters, Floats]:
    """``result`` and ``parts`` with each subject's own offsets, shrunk to the global ones (``trust``)."""
    own, own_parts = result.copy(), parts.copy()
    order = np.argsort(strata, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        there = rows[known[rows]]
        if len(there) < 2:
            continue
        shares = np.bincount(key[there], minlength=logprobs.shape[1]) / len(there)
        fitted = fit_prior_offsets(logprobs[there], shares, start=offsets)
        trust = subject_trust(len(there))
        even = np.full(len(rows), 1 / len(rows))
        shrunk = offsets + trust * (fitted - offsets)
        own[rows], own_parts[rows] = _apply_offsets(
            key[rows], letters[rows], logprobs[rows], known[rows], shrunk, even, trust
        )
    return own, own_parts


def subject_trust(questions: int) -> float:
    """Weight of a subject's own offsets; the rest is the global ones'."""
    return questions / (questions + SHRINKAGE)


def fit_prior_offsets(
    logprobs: Logprobs, shares: Floats, weights: Floats | None = None, start: Floats | None = None
) -> Floats:
    """One offset per letter, their sum 0, so that argmax(logprobs + offsets) has these letter shares.

    ``weights``: of the rows, summing to 1. ``start``: offsets close to the solution, from which only the
    lower temperatures are used.
    """
    target = np.maximum(shares / shares.sum(), 1e-6)  # finite offsets for all letters
    target = target / target.sum()
    weights = np.full(len(logprobs), 1 / len(logprobs)) if weights is None else weights / weights.sum()
    offsets = -(weights @ logprobs) if start is None else start
    for temperature in _TEMPERATURES if start is None else _TEMPERATURES[2:]:
        value, slope, curve = _offset_objective(logprobs, offsets, target, weights, temperature)
        for _ in range(30):
            step = -np.linalg.lstsq(curve + 1e-9 * np.eye(len(slope)), slope, rcond=None)[0]
            step *= min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-12))
            expected = float(slope @ step)
            if expected > -1e-12:
                break
            size = 1.0
            while size > 1e-4:
                tried = _offset_objective(logprobs, offsets + size * step, target, weights, temperature)
                if tried[0] <= value + 1e-4 * size * expected:
                    break
                size /= 2
            else:
                break
            offsets, (value, slope, curve) = offsets + size * step, tried
            if np.abs(slope).max() < 1e-5:
                break
        offsets = offsets - offsets.mean()
    return np.asarray(offsets)


def _offset_objective(
    logprobs: Logprobs, offsets: Floats, target: Floats, weights: Floats, temperature: float
) -> tuple[float, Floats, Floats]:
    """Value, gradient and Hessian of the module's objective."""
    scaled = (logprobs + offsets) / temperature
    soft = softmax_last_axis(scaled)
    shares = weights @ soft
    curve = (np.diag(shares) - (soft * weights[:, None]).T @ soft) / temperature
    return float(temperature * (weights @ log_sum_exp(scaled)) - target @ offsets), shares - target, curve


def _apply_offsets(
    key: Letters,
    letters: Letters,
    logprobs: Logprobs,
    known: NDArray[np.bool_],
    offsets: Floats,
    weights: Floats,
    trust: float = 1.0,
) -> tuple[Letters, Floats]:
    """Letters with ``offsets``, and each question's part in their accuracy: its own answer, and its effect on
    the offsets.
    """
    shifted = logprobs[known] + offsets
    result = letters.copy()
    result[known] = shifted.argmax(axis=1)
    parts = (result == key).astype(float)
    keys, weight = key[known], weights[known] / weights[known].sum()
    # Kernel width by the rule of thumb; a logistic kernel of scale s has standard deviation 1.81 s.
    spread = float((shifted - shifted.mean(axis=1, keepdims=True)).std())
    width = max(1.06 * spread * len(shifted) ** -0.2 / 1.81, 1e-6)
    soft = softmax_last_axis(shifted / width)
    # d shares / d offsets
    slope = (np.diag(weight @ soft) - (soft * weight[:, None]).T @ soft) / width
    onto = soft[np.arange(len(keys)), keys] * weight
    options = logprobs.shape[1]
    # d accuracy / d offsets
    gain = (np.bincount(keys, onto, minlength=options) - onto @ soft) / width
    pull = np.eye(options)[keys] - np.eye(options)[result[known]]
    parts[known] += trust * (pull @ (np.linalg.pinv(slope, rcond=1e-6) @ gain))
    return result, parts
