"""Gain decomposition: how much of a difference is letter habit ("letter prior"), and how much remains without it.

In: the key's letters, and two runs' letters and (where there are any) A-D log-probabilities, natural, same question order.
Out: ``Decomposition``, plain numbers, shares 0-1. Knows nothing of runs, files or words. KMMLU's test key is 10/30/30/30, so
a run that merely learns "rarely A" gains, and one that learns a training set's letter loses, with the same knowledge.

Two methods; ``Decomposition.method`` says which one was possible.

``logprobs``: re-weight both runs to a common letter prior and compare again. Each run gets four additive offsets on its
log-probabilities, fitted such that its predicted-letter shares are the key's: offsets on log-probabilities are a change of
class prior (Saerens, Latinne and Decaestecker 2002, Neural Computation 14:21; used for multiple choice by Zheng et al. 2024,
"Large Language Models Are Not Robust Multiple Choice Selectors", and as batch calibration by Zhou et al. 2024). Fitting is
convex: minimise mean_i tau * logsumexp((logprob_i + offset) / tau) - share . offset, whose gradient is "soft share minus wanted
share", with tau lowered until soft shares are argmax shares. The key's four shares are used, never a question's answer.
What is left of the gain at equal letter shares *remains*; the rest is *letter prior*.

``marginals``, for letters alone (imported predictions, generated text): accuracy expected from habit, sum over letters of
(share predicted) x (share in the key). If a run knows a share k of the questions and guesses the others with a fixed letter
habit, its accuracy is k + (1 - k) * (habit's agreement with the key), and while k stays, the change of expected accuracy is
exactly the change of accuracy. So it is taken as the letter prior's part; what k itself adds is in the rest, and so are
answers that became readable or unreadable (shares are taken among the parsed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.core.schema import LETTERS

MIN_LOGPROB_SHARE = 0.99  # below this share of questions with log-probabilities, they do not speak for the run
_TEMPERATURES = (1.0, 0.3, 0.1, 0.03, 0.01)

Letters = NDArray[np.int64]  # 0-3 for A-D, -1 for unparsed
Logprobs = NDArray[np.float64]  # (n, 4); NaN rows where there are none


@dataclass(frozen=True, slots=True)
class LetterHabit:
    """One run's letters against the key's."""

    accuracy: float  # unparsed counts as wrong
    shares: tuple[float, float, float, float]  # predicted, of all questions
    unparsed: float
    recall: tuple[float | None, ...]  # by key letter; None where the key never has it
    balanced_accuracy: float | None  # mean recall over the key's letters
    expected_accuracy: float  # from habit alone: sum of predicted share times key share
    matched_accuracy: float | None  # with the key's letter shares; None without log-probabilities


@dataclass(frozen=True, slots=True)
class RunLetters:
    """One run's letters, and the re-weighted ones where its log-probabilities allow them (``matched_letters``)."""

    letters: Letters
    matched: Letters | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the difference with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        return not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True)
class Decomposition:
    """``difference`` = ``letter_prior`` + ``remaining``, second minus first."""

    method: str  # "logprobs" or "marginals"
    key_shares: tuple[float, float, float, float]
    first: LetterHabit
    second: LetterHabit
    difference: float
    letter_prior: Part
    remaining: Part


def as_codes(letters: pl.Series | list[str | None]) -> Letters:
    """Letters as 0-3; anything else, null included, as -1."""
    series = pl.Series(letters, dtype=pl.String)
    return series.cast(pl.Enum(LETTERS), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()


def letter_shares(codes: Letters) -> NDArray[np.float64]:
    """Share of each letter among all entries; sums to less than 1 where some are unparsed."""
    return np.bincount(codes[codes >= 0], minlength=4) / max(1, len(codes))


def prior_offsets(logprobs: Logprobs, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four offsets, their sum 0, that make argmax(logprobs + offsets) fall on the letters with these shares."""
    from scipy.optimize import minimize

    target = np.maximum(shares / shares.sum(), 1e-6)  # a letter the key never has still needs a finite offset
    target = target / target.sum()
    offsets = -logprobs.mean(axis=0)

    def objective(values: NDArray[np.float64], temperature: float) -> tuple[float, NDArray[np.float64]]:
        scaled = (logprobs + values) / temperature
        top = scaled.max(axis=1)
        weights = np.exp(scaled - top[:, None])
        total = weights.sum(axis=1)
        soft = (weights / total[:, None]).mean(axis=0)
        return float(temperature * (top + np.log(total)).mean() - target @ values), soft - target

    for temperature in _TEMPERATURES:
        found = minimize(objective, offsets, args=(temperature,), jac=True, method="BFGS", options={"gtol": 1e-5, "maxiter": 100})
        offsets = found.x - found.x.mean()
    return np.asarray(offsets)


def letter_habit(key: Letters, run: RunLetters) -> LetterHabit:
    """One run's letter shares, recall by letter, balanced and expected accuracy."""
    letters = run.letters
    shares, key_shares = letter_shares(letters), letter_shares(key)
    recall = [float((letters[key == code] == code).mean()) if (key == code).any() else None for code in range(4)]
    seen = [value for value in recall if value is not None]
    return LetterHabit(
        accuracy=float((letters == key).mean()),
        shares=tuple(shares.tolist()),
        unparsed=float((letters < 0).mean()),
        recall=tuple(recall),
        balanced_accuracy=sum(seen) / len(seen) if seen else None,
        expected_accuracy=float(shares @ key_shares),
        matched_accuracy=None if run.matched is None else float((run.matched == key).mean()),
    )


def matched_letters(letters: Letters, logprobs: Logprobs | None, key_shares: NDArray[np.float64]) -> Letters | None:
    """The run's letters once its predicted shares are the key's; None where it has too few log-probabilities.

    The few questions without them keep their letter.
    """
    if logprobs is None or len(logprobs) == 0:
        return None
    known = np.isfinite(logprobs).all(axis=1)
    if known.mean() < MIN_LOGPROB_SHARE:
        return None
    result = letters.copy()
    result[known] = (logprobs[known] + prior_offsets(logprobs[known], key_shares)).argmax(axis=1)
    return result


def decompose(key: Letters, strata: Letters, first: RunLetters, second: RunLetters) -> Decomposition:
    """Split second minus first into letter prior and what remains; by log-probabilities where both runs have them.

    ``strata``: each question's subject as a number. The intervals are normal, of the mean of each question's contribution,
    questions varying within their subject; for the marginals the contribution is the linearised one (delta method).
    """
    shares = letter_shares(key)
    changes = (second.letters == key).astype(float) - (first.letters == key).astype(float)
    if first.matched is not None and second.matched is not None:
        method = "logprobs"
        rest = (second.matched == key).astype(float) - (first.matched == key).astype(float)
        remaining = float(rest.mean())
    else:
        method = "marginals"
        parsed = float(((first.letters >= 0).mean() + (second.letters >= 0).mean()) / 2)
        one, other = _habit(first.letters, key, shares), _habit(second.letters, key, shares)
        rest = changes - parsed * (other[1] - one[1])
        remaining = float(changes.mean() - parsed * (other[0] - one[0]))
    difference = float(changes.mean())
    return Decomposition(
        method,
        tuple(shares.tolist()),
        letter_habit(key, first),
        letter_habit(key, second),
        difference,
        Part(difference - remaining, *_interval(difference - remaining, changes - rest, strata)),
        Part(remaining, *_interval(remaining, rest, strata)),
    )


def _habit(letters: Letters, key: Letters, key_shares: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Expected accuracy from habit among the parsed, and each question's contribution to it, to first order and up to a constant.

    Among the parsed, because answers that become readable are no letter habit.
    """
    is_parsed = letters >= 0
    parsed = max(float(is_parsed.mean()), 1 / max(1, len(letters)))
    shares = letter_shares(letters)
    value = float(shares @ key_shares) / parsed
    return value, (np.where(is_parsed, key_shares[letters] - value, 0.0) + shares[key]) / parsed


def _interval(centre: float, contributions: NDArray[np.float64], strata: Letters) -> tuple[float, float]:
    from scipy.stats import norm

    counts = np.bincount(strata).astype(float)
    sums, squares = np.bincount(strata, contributions), np.bincount(strata, contributions**2)
    within = np.maximum(squares - sums**2 / np.maximum(counts, 1), 0.0)  # n times the variance, subject by subject
    half = float(norm.ppf(0.975) * np.sqrt(within.sum()) / max(1, len(contributions)))
    return centre - half, centre + half
