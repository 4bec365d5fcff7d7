"""Gain decomposition: how much of a difference is letter habit ("letter prior"), and how much remains
without it.

In: the key's letters, and two runs' letters and (where there are any) their log-probabilities, natural,
same question order; every question has the same number of options (``options``: 2 to 10, KMMLU's 4 unless
said). Out: ``Decomposition``, plain numbers, shares 0-1. Knows nothing of runs, files or words.
KMMLU's test key is 10/30/30/30, so a run that merely learns "rarely A" gains, and one that learns a training
set's letter loses, with the same knowledge.

difference = letter prior + reading + remaining. ``Decomposition.method`` says what was possible.

``logprobs``: re-weight both runs to a common letter prior and compare again. Each run gets an additive offset
a letter on its log-probabilities, fitted such that its predicted-letter shares are the key's: offsets on
log-probabilities are a change of class prior (Saerens, Latinne and Decaestecker 2002, Neural Computation
14:21; used for multiple choice by Zheng et al. 2024, "Large Language Models Are Not Robust Multiple Choice
Selectors", and as batch calibration by Zhou et al. 2024). Fitting is convex: minimise mean_i tau *
logsumexp((logprob_i + offset) / tau) - share . offset, whose gradient is "soft share minus wanted share",
with tau lowered until soft shares are argmax shares. The key's shares are used, never a question's
answer. What is left of the gain at equal letter shares *remains*. The interval holds the offsets' own error
(delta method, with a kernel estimate of how shares and accuracy follow the offsets). Habits differ by
subject: ``by_subject`` matches each subject's own shares, its offsets shrunk to the global ones.

``letters``, for letters alone (imported predictions, generated text): two models of guessing, which give a
range (``letter_models``). A verdict holds only where both agree.

``none``: too few questions to tell the parts apart.

Reading: answers that became readable or unreadable are neither knowledge nor habit; change of the parsed
share times the accuracy among the parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.analysis.letter_models import MODELS, Fit
from kmmlu_fast.analysis.strata import Codes, Estimate, Floats, mean_of, question_weights
from kmmlu_fast.core.schema import LETTERS

MIN_LOGPROB_SHARE = (
    0.99  # below this share of questions with log-probabilities, they do not speak for the run
)
MIN_LETTERS, MIN_LOGPROBS, MIN_BY_SUBJECT = 200, 200, 9_000  # questions below which a split is not given
SHRINKAGE = 100  # questions' worth of the global offsets in a subject's own
_TEMPERATURES = (1.0, 0.3, 0.1, 0.03, 0.01)

Letters = NDArray[np.int64]  # 0 for A, 1 for B, ...; -1 for unparsed
Logprobs = NDArray[np.float64]  # (n, options); NaN rows where there are none


@dataclass(frozen=True, slots=True)
class LetterHabit:
    """One run's letters against the key's."""

    accuracy: float  # unparsed counts as wrong
    shares: tuple[float, ...]  # predicted, of all questions, A first
    unparsed: float
    recall: tuple[float | None, ...]  # by key letter; None where the key never has it
    balanced_accuracy: float | None  # mean recall over the key's letters
    expected_accuracy: float  # from habit alone: sum of predicted share times key share
    matched_accuracy: float | None  # with the key's letter shares; None without log-probabilities


@dataclass(frozen=True, slots=True)
class Matched:
    """A run's letters once its shares are the key's, and each question's part in that accuracy, the offsets'
    error included.
    """

    letters: Letters
    contributions: Floats  # mean = the matched accuracy, to first order
    by_subject: tuple[Letters, Floats] | None = None  # the same by each subject's own shares


@dataclass(frozen=True, slots=True)
class RunLetters:
    """One run's letters, and the re-weighted ones where its log-probabilities allow them (``match``)."""

    letters: Letters
    matched: Matched | None = None


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
class Split:
    """What one model of habit makes of the difference. ``model``: "logprobs", or one of
    ``letter_models.MODELS``.
    """

    model: str
    letter_prior: Part
    remaining: Part


@dataclass(frozen=True, slots=True)
class Decomposition:
    """``difference`` = ``letter_prior`` + ``reading`` + ``remaining`` in every one of ``splits``, second
    minus first.
    """

    method: str  # "logprobs", "letters" or "none"
    key_shares: tuple[float, ...]
    first: LetterHabit
    second: LetterHabit
    difference: float
    reading: float
    splits: tuple[Split, ...]  # one by log-probabilities, two by letters alone, none with too few questions
    by_subject: Part | None = (
        None  # what remains at each subject's own letter shares (log-probabilities only)
    )

    @property
    def prior_range(self) -> tuple[float, float] | None:
        """Smallest and largest letter prior among the splits; None where there is none."""
        values = [split.letter_prior.value for split in self.splits]
        return (min(values), max(values)) if values else None

    @property
    def remaining_range(self) -> tuple[float, float] | None:
        values = [split.remaining.value for split in self.splits]
        return (min(values), max(values)) if values else None


def as_codes(letters: pl.Series | list[str | None], known: Sequence[str] = LETTERS) -> Letters:
    """Letters as their places in ``known``; anything else, null included, as -1."""
    series = pl.Series(letters, dtype=pl.String)
    return series.cast(pl.Enum(known), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()


def letter_shares(codes: Letters, options: int = len(LETTERS)) -> NDArray[np.float64]:
    """Share of each letter among all entries; sums to less than 1 where some are unparsed."""
    return np.bincount(codes[codes >= 0], minlength=options) / max(1, len(codes))


def prior_offsets(
    logprobs: Logprobs, shares: Floats, weights: Floats | None = None, start: Floats | None = None
) -> Floats:
    """An offset a letter, their sum 0, so that argmax(logprobs + offsets) falls on letters with these shares.

    ``weights``: of the rows, summing to 1. ``start``: offsets that are near already (only the last
    temperatures are then gone through).
    """
    target = np.maximum(shares / shares.sum(), 1e-6)  # a letter the key never has still needs a finite offset
    target = target / target.sum()
    weights = np.full(len(logprobs), 1 / len(logprobs)) if weights is None else weights / weights.sum()
    offsets = -(weights @ logprobs) if start is None else start

    for temperature in _TEMPERATURES if start is None else _TEMPERATURES[2:]:
        value, slope, curve = _soft(logprobs, offsets, target, weights, temperature)
        for _ in range(30):
            step = -np.linalg.lstsq(curve + 1e-9 * np.eye(len(slope)), slope, rcond=None)[0]
            step *= min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-12))
            expected = float(slope @ step)
            if expected > -1e-12:
                break
            size = 1.0
            while size > 1e-4:
                tried = _soft(logprobs, offsets + size * step, target, weights, temperature)
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


def _soft(
    logprobs: Logprobs, offsets: Floats, target: Floats, weights: Floats, temperature: float
) -> tuple[float, Floats, Floats]:
    """Value, gradient and Hessian of the objective above."""
    scaled = (logprobs + offsets) / temperature
    top = scaled.max(axis=1)
    soft = np.exp(scaled - top[:, None])
    total = soft.sum(axis=1)
    soft /= total[:, None]
    shares = weights @ soft
    curve = (np.diag(shares) - (soft * weights[:, None]).T @ soft) / temperature
    return float(temperature * (weights @ (top + np.log(total))) - target @ offsets), shares - target, curve


def letter_habit(key: Letters, run: RunLetters, options: int = len(LETTERS)) -> LetterHabit:
    """One run's letter shares, recall by letter, balanced and expected accuracy."""
    letters = run.letters
    shares, key_shares = letter_shares(letters, options), letter_shares(key, options)
    recall = [
        float((letters[key == code] == code).mean()) if (key == code).any() else None
        for code in range(options)
    ]
    seen = [value for value in recall if value is not None]
    return LetterHabit(
        accuracy=float((letters == key).mean()),
        shares=tuple(shares.tolist()),
        unparsed=float((letters < 0).mean()),
        recall=tuple(recall),
        balanced_accuracy=sum(seen) / len(seen) if seen else None,
        expected_accuracy=float(shares @ key_shares),
        matched_accuracy=None if run.matched is None else float((run.matched.letters == key).mean()),
    )


def match(
    key: Letters,
    letters: Letters,
    logprobs: Logprobs | None,
    strata: Codes | None = None,
    weights: Floats | None = None,
) -> Matched | None:
    """The run's letters once its predicted shares are the key's; None where it has too few log-probabilities.

    The few questions without them, and answers that were not read, keep their letter. ``strata``: subjects,
    for ``by_subject``; ``weights``: of the questions, summing to 1.
    """
    if logprobs is None or len(logprobs) == 0:
        return None
    known = np.isfinite(logprobs).all(axis=1)
    if known.mean() < MIN_LOGPROB_SHARE:
        return None
    known &= letters >= 0
    weights = np.full(len(key), 1 / len(key)) if weights is None else weights
    options = logprobs.shape[1]
    shares = np.bincount(key[known], weights[known], minlength=options).astype(float)
    offsets = prior_offsets(logprobs[known], shares, weights[known])
    result, parts = _moved(key, letters, logprobs, known, offsets, weights)
    if strata is None or len(key) < MIN_BY_SUBJECT:
        return Matched(result, parts)
    own, own_parts = result.copy(), parts.copy()
    order = np.argsort(strata, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        there = rows[known[rows]]
        if len(there) < 2:
            continue
        fitted = prior_offsets(
            logprobs[there], np.bincount(key[there], minlength=options) / len(there), start=offsets
        )
        trust = len(there) / (len(there) + SHRINKAGE)
        even = np.full(len(rows), 1 / len(rows))
        near = offsets + trust * (fitted - offsets)
        own[rows], own_parts[rows] = _moved(
            key[rows], letters[rows], logprobs[rows], known[rows], near, even, trust
        )
    return Matched(result, parts, (own, own_parts))


def _moved(
    key: Letters,
    letters: Letters,
    logprobs: Logprobs,
    known: NDArray[np.bool_],
    offsets: Floats,
    weights: Floats,
    trust: float = 1.0,
) -> tuple[Letters, Floats]:
    """Letters under ``offsets``, and each question's part in their accuracy: its own answer, and its pull on
    the offsets.
    """
    moved = logprobs[known] + offsets
    result = letters.copy()
    result[known] = moved.argmax(axis=1)
    right = (result == key).astype(float)
    keys, weight = key[known], weights[known] / weights[known].sum()
    # Kernel width by the rule of thumb; a logistic kernel of scale s has standard deviation 1.81 s.
    width = 1.06 * float((moved - moved.mean(axis=1, keepdims=True)).std()) * len(moved) ** -0.2 / 1.81
    scaled = moved / max(width, 1e-6)
    soft = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    slope = (np.diag(weight @ soft) - (soft * weight[:, None]).T @ soft) / max(
        width, 1e-6
    )  # d shares / d offsets
    onto = soft[np.arange(len(keys)), keys] * weight
    options = logprobs.shape[1]
    gain = (np.bincount(keys, onto, minlength=options) - onto @ soft) / max(
        width, 1e-6
    )  # d accuracy / d offsets
    pull = np.eye(options)[keys] - np.eye(options)[result[known]]
    parts = right
    parts[known] += trust * (pull @ (np.linalg.pinv(slope, rcond=1e-6) @ gain))
    return result, parts


def decompose(
    key: Letters,
    strata: Codes,
    first: RunLetters,
    second: RunLetters,
    weights: Floats | None = None,
    asked: Floats | None = None,
    options: int = len(LETTERS),
) -> Decomposition:
    """Split second minus first into letter prior, reading and what remains; by log-probabilities where both
    runs have them.

    ``strata``: each question's subject as a number, 0..H-1; ``weights``: each subject's weight in the
    accuracy (default: its share of the questions); ``options``: how many every question has. Intervals are
    of the mean of each question's contribution, questions varying within their subject.
    """
    each = question_weights(strata, weights)
    shares = np.bincount(key, each, minlength=options)
    changes = (second.letters == key).astype(float) - (first.letters == key).astype(float)
    difference = float(each @ changes)
    habits = (letter_habit(key, first, options), letter_habit(key, second, options))
    common = (tuple(shares.tolist()), *habits, difference)

    def part(value: float, contributions: Floats) -> Part:
        half = mean_of(contributions, strata, weights, asked)
        low, high = half.interval()
        return Part(value, low - half.value + value, high - half.value + value)

    answers = options + 1  # the letters, and unparsed
    cells = (key * answers + first.letters + 1) * answers + second.letters + 1
    table = np.bincount(cells, each, minlength=options * answers**2).astype(float)
    reading, reading_parts = _linearised(
        partial(_reading, options=options), [table], [np.eye(len(table))], cells
    )
    if first.matched is not None and second.matched is not None:
        if len(key) < MIN_LOGPROBS:
            return Decomposition("none", *common, reading, ())
        one, other = first.matched, second.matched
        remaining = float(each @ ((other.letters == key).astype(float) - (one.letters == key).astype(float)))
        rest = other.contributions - one.contributions
        prior = part(difference - reading - remaining, changes - reading_parts - rest)
        own = None
        if one.by_subject is not None and other.by_subject is not None:
            left = (other.by_subject[0] == key).astype(float) - (one.by_subject[0] == key).astype(float)
            own = part(float(each @ left), other.by_subject[1] - one.by_subject[1])
        return Decomposition(
            "logprobs", *common, reading, (Split("logprobs", prior, part(remaining, rest)),), own
        )
    if len(key) < MIN_LETTERS:
        return Decomposition("none", *common, reading, ())
    splits = []
    for name, (fit, swapped) in MODELS.items():
        prior_value, prior_parts = _habit_part(table * len(key), cells, fit, swapped, options)
        rest_value = difference - reading - prior_value
        rest_parts = changes - reading_parts - prior_parts
        splits.append(Split(name, part(prior_value, prior_parts), part(rest_value, rest_parts)))
    return Decomposition("letters", *common, reading, tuple(splits))


def difference_of(one: Estimate, other: Estimate) -> Part:
    """The difference of two independent estimates."""
    variance = one.error**2 + other.error**2
    df = variance**2 / max(one.error**4 / max(one.df, 1.0) + other.error**4 / max(other.df, 1.0), 1e-300)
    found = Estimate(one.value - other.value, variance**0.5, df)
    return Part(found.value, *found.interval())


def _reading(table: Floats, options: int) -> float:
    """Change of the parsed share times the accuracy among the parsed; ``table``: shares of (key, first + 1,
    second + 1).
    """
    cube = table.reshape(options, options + 1, options + 1)
    letters = np.arange(options)
    parsed = cube[:, 1:, :].sum(), cube[:, :, 1:].sum()
    right = cube[letters, letters + 1, :].sum(), cube[letters, :, letters + 1].sum()
    return float(
        (parsed[1] - parsed[0]) * sum(r / max(p, 1e-12) for r, p in zip(right, parsed, strict=True)) / 2
    )


def _habit_part(
    counts: Floats,
    cells: Letters,
    fit: Callable[[Floats], Fit],
    swapped: Callable[..., float],
    options: int,
) -> tuple[float, Floats]:
    """One letter model's letter prior and each question's part in it. ``counts`` of (key, first + 1, second
    + 1).
    """
    shape = (options, options + 1, options + 1)
    cube = counts.reshape(shape)
    fits = [fit(cube[:, 1:, :].sum(axis=2)), fit(cube[:, :, 1:].sum(axis=1))]

    def value(first: Floats, second: Floats, table: Floats) -> float:
        shares = table.reshape(shape)
        parsed = (shares[:, 1:, :].sum() + shares[:, :, 1:].sum()) / 2
        return float(parsed * swapped(first, second, shares.sum(axis=(1, 2))))

    total = counts.sum()
    influence = [np.zeros((*shape, options)), np.zeros((*shape, options))]
    influence[0][:, 1:, :, :] = fits[0].influence[:, :, None, :] * total
    influence[1][:, :, 1:, :] = fits[1].influence[:, None, :, :] * total
    points = [fits[0].theta, fits[1].theta, counts / total]
    flat = [one.reshape(len(counts), options) for one in influence]
    return _linearised(value, points, [*flat, np.eye(len(counts))], cells)


def _linearised(
    function: Callable[..., float], points: list[Floats], influence: list[Floats], cells: Letters
) -> tuple[float, Floats]:
    """A function's value at ``points`` and each question's part in it: gradient (by differences) times the
    cell's influence.
    """
    value = function(*points)
    by_cell = np.zeros(len(influence[0]))
    for place, point in enumerate(points):
        step = 1e-5
        gradient = np.empty(len(point))
        for i in range(len(point)):
            ends = []
            for sign in (1, -1):
                moved = point.copy()
                moved[i] += sign * step
                ends.append(function(*points[:place], moved, *points[place + 1 :]))
            gradient[i] = (ends[0] - ends[1]) / (2 * step)
        by_cell += influence[place] @ gradient
    return value, by_cell[cells]
