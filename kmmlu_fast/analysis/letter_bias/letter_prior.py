"""Gain decomposition: how much of a difference is letter habit ("letter prior"), and how much remains
without it.

In: the key's letters, and two runs' letters with (if any) their log-probabilities, natural, same question
order; every question has the same number of options (``options``: 2 to 10, default KMMLU's 4). Out:
``Decomposition``, plain numbers, shares 0-1. Knows nothing of runs, files or words.
KMMLU's test key is 10/30/30/30, so with the same knowledge a run that merely learns "rarely A" gains, and one
that learns the preferred letter of its training set loses.

difference = letter prior + reading + remaining. ``Decomposition.method`` names the method:

``logprobs``: re-weight both runs to a common letter prior and compare again (``offsets``). The gain at equal
letter shares *remains*. The interval includes the offsets' own error. Habits differ by subject:
``by_subject`` matches each subject's own shares, its offsets shrunk to the global ones; its interval includes
what the shrinkage leaves. What remains is free of letter habit only if the habit shifts a letter alike on all
questions (of a subject); so there is a verdict only if both views agree.

``letters``, without log-probabilities (imported predictions, generated text): two models of guessing, which
give a range (``letter_models``). ``by_subject`` has each subject's own parameters in both. There is a verdict
only if both models agree, with one habit for all and with each subject's own.

``none``: too few questions to separate the parts.

Reading: answers that became readable or unreadable are neither knowledge nor habit; change of the parsed
share times the accuracy among the parsed. The other parts are among the answers that could be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.analysis.accuracy import mean_recall
from kmmlu_fast.analysis.letter_bias.letter_models import MODELS, LetterModelFit, fit_choices
from kmmlu_fast.analysis.letter_bias.offsets import Letters, MatchedLetters, subject_trust
from kmmlu_fast.analysis.strata import Codes, Floats, IntervalEstimate, question_weights, stratified_mean
from kmmlu_fast.core.schema import LETTERS

MIN_LETTERS, MIN_LOGPROBS = 200, 200  # with fewer questions there is no split


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterHabit:
    """One run's letters against the key's."""

    accuracy: float  # unparsed counts as wrong
    shares: tuple[float, ...]  # predicted, of all questions, A first
    unparsed: float
    recall: tuple[float | None, ...]  # by key letter; None if the key never has it
    balanced_accuracy: float | None  # mean recall over the key's letters
    expected_accuracy: float  # from habit alone: sum of predicted share times key share
    matched_accuracy: float | None  # with the key's letter shares; None without log-probabilities


@dataclass(frozen=True, slots=True)
class RunLetters:
    """One run's letters, and the re-weighted ones (``match_letter_shares``) if it has log-probabilities."""

    letters: Letters
    matched: MatchedLetters | None = None


MatchedPart = tuple[Letters, Floats]  # letters with offsets, each question's part in their accuracy


@dataclass(frozen=True, slots=True)
class HabitSplit:
    """The difference split by one model of habit. ``model``: "logprobs" or a key of ``MODELS``."""

    model: str
    letter_prior: IntervalEstimate
    remaining: IntervalEstimate


@dataclass(frozen=True, slots=True, kw_only=True)
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
    reading_part: IntervalEstimate  # ``reading`` with its interval
    # one by log-probabilities, two by letters alone, none with too few questions
    splits: tuple[HabitSplit, ...]
    # what remains with each subject's own habit; None with a single subject
    by_subject: IntervalEstimate | None = None
    by_subject_prior: IntervalEstimate | None = None  # the letter prior at those shares

    @property
    def prior_range(self) -> tuple[float, float] | None:
        """Smallest and largest letter prior among the splits; None without splits."""
        return _range_or_none([split.letter_prior.value for split in self.splits])

    @property
    def remaining_range(self) -> tuple[float, float] | None:
        return _range_or_none([split.remaining.value for split in self.splits])


def _range_or_none(values: list[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


def letter_codes(letters: pl.Series | list[str | None], known: Sequence[str] = LETTERS) -> Letters:
    """Letters as their positions in ``known``; anything else, null included, as -1."""
    series = pl.Series(letters, dtype=pl.String)
    return series.cast(pl.Enum(known), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()


def letter_shares(codes: Letters, options: int = len(LETTERS)) -> NDArray[np.float64]:
    """Share of each letter among all entries; sums to less than 1 if some are unparsed."""
    return np.bincount(codes[codes >= 0], minlength=options) / max(1, len(codes))


def letter_habit(key: Letters, run: RunLetters, options: int = len(LETTERS)) -> LetterHabit:
    """One run's letter shares, recall by letter, balanced and expected accuracy."""
    letters = run.letters
    shares, key_shares = letter_shares(letters, options), letter_shares(key, options)
    recall: list[float | None] = [None] * options
    for code in range(options):
        if (key == code).any():
            recall[code] = float((letters[key == code] == code).mean())
    return LetterHabit(
        accuracy=float((letters == key).mean()),
        shares=tuple(shares.tolist()),
        unparsed=float((letters < 0).mean()),
        recall=tuple(recall),
        balanced_accuracy=mean_recall(recall),
        expected_accuracy=float(shares @ key_shares),
        matched_accuracy=None if run.matched is None else float((run.matched.letters == key).mean()),
    )


def decompose_difference(
    key: Letters,
    strata: Codes,
    first: RunLetters,
    second: RunLetters,
    weights: Floats | None = None,
    asked: Floats | None = None,
    options: int = len(LETTERS),
) -> Decomposition:
    """Split second minus first into letter prior, reading and what remains; by log-probabilities if both runs
    have them.

    ``strata``: each question's subject as a number, 0..H-1; ``weights``: each subject's weight in the
    accuracy (default: its share of the questions); ``options``: number of options of every question.
    Intervals are those of the mean of the questions' contributions, questions varying within their subject.
    """
    each = question_weights(strata, weights)
    shares = np.bincount(key, each, minlength=options)
    changes = (second.letters == key).astype(float) - (first.letters == key).astype(float)
    difference = float(each @ changes)

    def decomposition(
        method: str, splits: tuple[HabitSplit, ...], own: HabitSplit | None = None
    ) -> Decomposition:
        return Decomposition(
            method=method,
            key_shares=tuple(shares.tolist()),
            first=letter_habit(key, first, options),
            second=letter_habit(key, second, options),
            difference=difference,
            reading=reading,
            reading_part=part(reading, reading_parts),
            splits=splits,
            by_subject=own.remaining if own else None,
            by_subject_prior=own.letter_prior if own else None,
        )

    def part(value: float, contributions: Floats) -> IntervalEstimate:
        mean = stratified_mean(contributions, strata, weights, asked)
        low, high = mean.interval()
        return IntervalEstimate(value, low - mean.value + value, high - mean.value + value)

    answers = options + 1  # the letters, and unparsed
    cells = (key * answers + first.letters + 1) * answers + second.letters + 1
    table = np.bincount(cells, each, minlength=options * answers**2).astype(float)
    reading, reading_parts = _linearise_function(
        partial(_reading_effect, options=options), [table], [np.eye(len(table))], cells
    )
    if first.matched is not None and second.matched is not None:
        if len(key) < MIN_LOGPROBS:
            return decomposition("none", ())
        read = (first.letters >= 0, second.letters >= 0)

        def matched_split(model: str, one: MatchedPart, other: MatchedPart) -> HabitSplit:
            rest, rest_parts = _change_among_read(key, each, read, one, other)
            prior_parts = changes - reading_parts - rest_parts
            return HabitSplit(model, part(difference - reading - rest, prior_parts), part(rest, rest_parts))

        one, other = first.matched, second.matched
        split = matched_split(
            "logprobs", (one.letters, one.contributions), (other.letters, other.contributions)
        )
        own = None
        if one.by_subject is not None and other.by_subject is not None:
            own = matched_split("by subject", one.by_subject, other.by_subject)
            own = _widen_by_shrinkage(own, split, strata, each)
        return decomposition("logprobs", (split,), own)
    if len(key) < MIN_LETTERS:
        return decomposition("none", ())
    splits = []
    for name, (fit, habit_effect) in MODELS.items():
        prior_value, prior_parts = _habit_effect(table * len(key), cells, fit, habit_effect, options)
        rest_value = difference - reading - prior_value
        rest_parts = changes - reading_parts - prior_parts
        splits.append(HabitSplit(name, part(prior_value, prior_parts), part(rest_value, rest_parts)))
    own = None
    if strata.max(initial=0) > 0:
        priors = _habit_effects_by_subject(key, strata, each, first.letters, second.letters, options)
        own = _letters_by_subject(splits, priors, difference - reading, strata, each)
    return decomposition("letters", tuple(splits), own)


def _letters_by_subject(
    splits: list[HabitSplit], priors: dict[str, float], change: float, strata: Codes, each: Floats
) -> HabitSplit:
    """The split with each subject's own habit, by both models: the mean of their values, and intervals that
    hold both models' ones, each as wide as the wider model's. With one model alone, what it gets wrong about
    guessing would pass for what remains.
    """

    def around(value: float, parts: list[IntervalEstimate]) -> IntervalEstimate:
        half = max(part.high - part.low for part in parts) / 2
        return IntervalEstimate(value, value - half, value + half)

    def hull(parts: list[IntervalEstimate]) -> IntervalEstimate:
        value = sum(part.value for part in parts) / len(parts)
        return IntervalEstimate(value, min(part.low for part in parts), max(part.high for part in parts))

    own = []
    for split in splits:
        prior = around(priors[split.model], [each_split.letter_prior for each_split in splits])
        rest = around(change - priors[split.model], [each_split.remaining for each_split in splits])
        own.append(_widen_by_shrinkage(HabitSplit(split.model, prior, rest), split, strata, each))
    return HabitSplit(
        "by subject", hull([split.letter_prior for split in own]), hull([split.remaining for split in own])
    )


def _habit_effects_by_subject(
    key: Letters, strata: Codes, each: Floats, first: Letters, second: Letters, options: int
) -> dict[str, float]:
    """Each model's letter prior with each subject's own parameters, shrunk to the common ones."""
    count = int(strata.max()) + 1
    sizes = np.bincount(strata, minlength=count).astype(float)
    weights = np.bincount(strata, each, minlength=count)
    cells = strata * options + key
    shares = np.bincount(cells, minlength=count * options).reshape(count, options) / sizes[:, None]
    trust = np.array([subject_trust(int(size)) for size in sizes])[:, None]
    thetas: dict[str, list[Floats]] = {"mixture": [], "choice": []}
    read_shares = []
    for letters in (first, second):
        read = letters >= 0
        places = (cells[read]) * options + letters[read]
        counts = np.bincount(places, minlength=count * options**2).astype(float)
        table = counts.reshape(count, options, options)
        both = (table, table.sum(axis=0, keepdims=True))
        fits = {"mixture": map(_guess_by_moments, both), "choice": map(fit_choices, both)}
        for name, (own, common) in fits.items():
            thetas[name].append(trust * own + (1 - trust) * common)
        read_shares.append(np.bincount(strata[read], minlength=count) / sizes)
    read_share = (read_shares[0] + read_shares[1]) / 2
    effects = {}
    for name, (_, habit_effect) in MODELS.items():
        before, after = thetas[name]
        effects[name] = float(weights @ (read_share * habit_effect(before, after, shares)))
    return effects


def _guess_by_moments(table: Floats) -> Floats:
    """The mixture model's g_j = P(answer j | key is not j) of many tables, (tables, k, k)."""
    answers = table.sum(axis=2)
    others = answers.sum(axis=1, keepdims=True) - answers
    off = table.sum(axis=1) - np.diagonal(table, axis1=1, axis2=2)
    return np.asarray(np.maximum(off / np.maximum(others, 1), 1e-9))


def _change_among_read(
    key: Letters,
    each: Floats,
    read: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    one: MatchedPart,
    other: MatchedPart,
) -> tuple[float, Floats]:
    """Mean read share times the change of the matched accuracy among the read, and each question's part."""
    shares, accuracies, parts = [], [], []
    for mask, (letters, contributions) in zip(read, (one, other), strict=True):
        share = max(float(each @ mask), 1e-12)
        accuracy = float(each @ (letters == key)) / share
        shares.append(share)
        accuracies.append(accuracy)
        parts.append((contributions - accuracy * mask) / share)
    share, change = (shares[0] + shares[1]) / 2, accuracies[1] - accuracies[0]
    own = (read[0].astype(float) + read[1]) / 2 - share
    return share * change, share * change + share * (parts[1] - parts[0]) + change * own


def _widen_by_shrinkage(own: HabitSplit, common: HabitSplit, strata: Codes, each: Floats) -> HabitSplit:
    """With intervals that reach to where unshrunk offsets would lead, by linear extrapolation from the common
    offsets.
    """
    sizes = np.bincount(strata)
    trust = float(each @ np.array([subject_trust(int(size)) for size in sizes])[strata])
    left = min(1.0, (1 - trust) / max(trust, 1e-12)) * (own.remaining.value - common.remaining.value)

    def widened(part: IntervalEstimate, shift: float) -> IntervalEstimate:
        return IntervalEstimate(part.value, part.low + min(shift, 0.0), part.high + max(shift, 0.0))

    return HabitSplit(own.model, widened(own.letter_prior, -left), widened(own.remaining, left))


def _reading_effect(table: Floats, options: int) -> Floats:
    """Change of the parsed share times the accuracy among the parsed; ``table``: shares of (key, first + 1,
    second + 1), flat; leading axes are batch axes.
    """
    cube = table.reshape(*table.shape[:-1], options, options + 1, options + 1)
    letters = np.arange(options)
    both = [
        (cube[..., 1:, :].sum((-3, -2, -1)), cube[..., letters, letters + 1, :].sum((-2, -1))),
        (cube[..., 1:].sum((-3, -2, -1)), cube[..., letters, :, letters + 1].sum((0, -1))),
    ]
    accuracy = sum(right / np.maximum(parsed, 1e-12) for parsed, right in both)
    return np.asarray((both[1][0] - both[0][0]) * accuracy / 2)


def _habit_effect(
    counts: Floats,
    cells: Letters,
    fit: Callable[[Floats], LetterModelFit],
    habit_effect: Callable[..., Floats],
    options: int,
) -> tuple[float, Floats]:
    """One letter model's letter prior and each question's part in it. ``counts``: by (key, first + 1,
    second + 1), flat.
    """
    shape = (options, options + 1, options + 1)
    cube = counts.reshape(shape)
    fits = [fit(cube[:, 1:, :].sum(axis=2)), fit(cube[:, :, 1:].sum(axis=1))]

    def value(first: Floats, second: Floats, table: Floats) -> Floats:
        shares = table.reshape(*table.shape[:-1], *shape)
        parsed = (shares[..., 1:, :].sum((-3, -2, -1)) + shares[..., 1:].sum((-3, -2, -1))) / 2
        return np.asarray(parsed * habit_effect(first, second, shares.sum(axis=(-2, -1))))

    total = counts.sum()
    influence = [np.zeros((*shape, options)), np.zeros((*shape, options))]
    influence[0][:, 1:, :, :] = fits[0].influence[:, :, None, :] * total
    influence[1][:, :, 1:, :] = fits[1].influence[:, None, :, :] * total
    points = [fits[0].theta, fits[1].theta, counts / total]
    flat = [array.reshape(len(counts), options) for array in influence]
    return _linearise_function(value, points, [*flat, np.eye(len(counts))], cells)


def _linearise_function(
    function: Callable[..., Floats], points: list[Floats], influence: list[Floats], cells: Letters
) -> tuple[float, Floats]:
    """A function's value at ``points`` and each question's part in it: gradient (by finite differences) times
    the cell's influence. The function accepts points with leading batch axes.
    """
    by_cell = np.zeros(len(influence[0]))
    for place, point in enumerate(points):
        step = 1e-5
        shift = step * np.eye(len(point))
        ends = [function(*points[:place], point + sign * shift, *points[place + 1 :]) for sign in (1, -1)]
        by_cell += influence[place] @ ((ends[0] - ends[1]) / (2 * step))
    return float(function(*points)), by_cell[cells]
