"""The control variate of the sequential test: the expected value of each answer before it is given.

In: answers in the order of asking (right or wrong), and what is known about *all* N questions beforehand.
Out: an ``AnswerStream``, the answers with their expectation subtracted, on which ``betting`` bets. Pure,
numpy only. Knows nothing of runs or words.

A question's expectation h is a ridge logistic regression, refitted on past answers only, after 50, 75, 112,
... answers. It starts from, and is shrunk to, a guess: the second run answers as the first did. h may be any
function of the past and of what is known about a question before it is asked. A poor h costs questions, never
validity, because its mean over the remaining questions is known and accounted for exactly. So the paired test
knows the first run's answers either for all questions (then h uses them, the main source of the gain) or only
for those that the second has answered (then h does not).

If some questions were likelier to be drawn than others (``sampling_weights``), y - h is multiplied by the
mean weight of the remaining questions over the question's own, which makes each draw unbiased for their mean
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.analysis.sequential.sampling_weights import DrawnWeights, Floats

_Expect = Callable[[int, Floats], tuple[Floats, Floats]]  # answers, last weights -> h of all N, weights
FIRST_REFIT = 50  # answers
_GROWTH = 1.5  # of the past, between two refits
_AGREES = 4.0  # guessed rise of the second run's log-odds if the first run is right
_RISES = 0.8  # log-odds per standard deviation of the public runs' share of right answers
_WEAK, _FIRM = 1.0, 10.0  # ridge penalties: of the slopes, and of the key letters' effects
_PRIOR_VARIANCE, _PRIOR_ANSWERS = 0.15, 20.0  # of x, before any answer, and its weight in answers


@dataclass(frozen=True, slots=True)
class KnownQuestions:
    """What is known about all N questions beforehand, in the order of asking; None if not known."""

    total: int  # N
    ease: Floats | None = None  # (N,) any scale, larger = easier; NaN if not known
    # (N,) the right option's position: a letter habit shows as an effect of the key
    key: NDArray[np.int64] | None = None
    # (N,) the first run's margin, nats, if that run is complete; NaN if it has none
    margin: Floats | None = None
    weights: DrawnWeights | None = None  # of the order; None: uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStream:
    """n of N answers with their expectation subtracted.

    At each t all but ``value``, ``floor`` and ``ceiling`` are known before question t is answered.
    """

    total: int  # N
    value: Floats  # (n,) x_t = y_t - h_t, times the mean weight over the question's own
    before: Floats  # (n,) sum of y over the answers before t
    expected: Floats  # (n,) mean of h_t over the questions from t on
    least: Floats  # (n,) smallest and largest value that any question from t on could give
    most: Floats
    spread: Floats  # (n,) standard deviation of x, estimated on the past
    floor: Floats  # (n,) smallest and largest possible mean of y over all N, after t: 0-1, or -1 to 1
    ceiling: Floats
    importance: Floats  # (n,) mean weight over the question's own; 1 in a uniform order

    def __len__(self) -> int:
        return len(self.value)


def paired_stream(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    known: KnownQuestions,
    refits: Sequence[int] | None = None,
    ahead: bool | None = None,
    reference: NDArray[np.bool_] | None = None,
) -> AnswerStream:
    """y = second right - first right, (n,) in the order of asking; ``first``: (N,) if complete, else (n,).

    ``refits``: numbers of answers after which the regression is refitted; default 50, 75, 112, ...
    ``ahead``: whether the first run was complete before the second started; default: if it is complete.
    ``reference``: (N,) whether a complete third run is right, such as the base of the two; only if the first
    is not complete.
    """
    n, total = len(second), known.total
    one, other = first.astype(np.float64), second.astype(np.float64)
    if len(first) == total and ahead is not False:
        design, guess, penalty = _design_matrix(known, one)
        lowest, highest = -one, 1.0 - one

        def expect(past: int, last: Floats) -> tuple[Floats, Floats]:
            weights = _fit_ridge_logistic(design[:past], other[:past], guess, penalty, last)
            return _logistic_function(design @ weights) - one, weights

    else:
        third = None if reference is None else reference.astype(np.float64)
        design, guess, penalty = _design_matrix(known, third)
        lowest, highest = np.full(total, -1.0), np.full(total, 1.0)
        half = len(guess)

        def expect(past: int, last: Floats) -> tuple[Floats, Floats]:
            if past == 0:
                return np.zeros(total), np.concatenate([guess, guess])
            a = _fit_ridge_logistic(design[:past], one[:past], guess, penalty, last[:half])
            b = _fit_ridge_logistic(design[:past], other[:past], guess, penalty, last[half:])
            return _logistic_function(design @ b) - _logistic_function(design @ a), np.concatenate([a, b])

    return _make_stream(other - one[:n], lowest, highest, expect, refits, known.weights)


def accuracy_stream(
    right: NDArray[np.bool_], known: KnownQuestions, refits: Sequence[int] | None = None
) -> AnswerStream:
    """y = right, of one run: (n,) in the order of asking."""
    design, guess, penalty = _design_matrix(known, None)
    y = right.astype(np.float64)

    def expect(past: int, last: Floats) -> tuple[Floats, Floats]:
        weights = _fit_ridge_logistic(design[:past], y[:past], guess, penalty, last)
        return _logistic_function(design @ weights), weights

    return _make_stream(y, np.zeros(known.total), np.ones(known.total), expect, refits, known.weights)


def expect_right(first: NDArray[np.bool_], second: NDArray[np.bool_], known: KnownQuestions) -> Floats:
    """(N,) the second run's expected share of right answers to each question, from its n answers so far.

    ``first``: (N,), complete.
    """
    one = first.astype(np.float64)
    design, guess, penalty = _design_matrix(known, one)
    n = len(second)
    weights = _fit_ridge_logistic(design[:n], second.astype(np.float64), guess, penalty, guess)
    return _logistic_function(design @ weights)


def _make_stream(
    y: Floats,
    lowest: Floats,
    highest: Floats,
    expect: _Expect,
    refits: Sequence[int] | None,
    weights: DrawnWeights | None,
) -> AnswerStream:
    n, total = len(y), len(lowest)
    value, expected, least, most = (np.empty(n) for _ in range(4))
    fitted, h, importance = np.zeros(0), np.zeros(0), np.ones(n)
    refits = _refit_schedule(n) if refits is None else refits
    redraws = () if weights is None else weights.starts
    points = sorted({0, n, *(point for point in (*refits, *redraws) if 0 < point < n)})
    for start, end in pairwise(points):
        if start == 0 or start in refits:
            h, fitted = expect(start, fitted)
        left = h[start:]
        block = slice(start, end)
        value[block] = y[block] - h[block]
        expected[block] = _suffix_sums(left)[: end - start] / (total - np.arange(start, end))
        low, high = lowest[start:] - left, highest[start:] - left
        if weights is None:
            least[block], most[block] = low.min(initial=np.inf), high.max(initial=-np.inf)
        else:
            drawn = weights.at_place(start)[start:].astype(np.float64)
            mean_weight = _suffix_sums(drawn)[: end - start] / (total - np.arange(start, end))
            importance[block] = mean_weight / drawn[: end - start]
            value[block] *= importance[block]
            least[block] = mean_weight * np.minimum.accumulate((low / drawn)[::-1])[::-1][: end - start]
            most[block] = mean_weight * np.maximum.accumulate((high / drawn)[::-1])[::-1][: end - start]
    summed = np.cumsum(y)
    floor = (summed + (lowest.sum() - np.cumsum(lowest[:n]))) / total
    ceiling = (summed + (highest.sum() - np.cumsum(highest[:n]))) / total
    return AnswerStream(
        total=total,
        value=value,
        before=summed - y,
        expected=expected,
        least=least,
        most=most,
        spread=_running_deviation(value),
        floor=floor,
        ceiling=ceiling,
        importance=importance,
    )


def _suffix_sums(values: Floats) -> Floats:
    """The sum of the values from each place on."""
    return np.asarray(np.cumsum(values[::-1])[::-1])


def _refit_schedule(n: int) -> list[int]:
    points = [FIRST_REFIT]
    while points[-1] < n:
        points.append(int(points[-1] * _GROWTH))
    return points


def _running_deviation(value: Floats) -> Floats:
    """Standard deviation of the values before each one, around their mean; shrunk to the prior while few."""
    count = np.arange(len(value))
    total, squares = np.cumsum(value) - value, np.cumsum(value**2) - value**2
    around = np.maximum(squares - total**2 / np.maximum(count, 1), 0.0)
    return np.asarray(np.sqrt((_PRIOR_ANSWERS * _PRIOR_VARIANCE + around) / (_PRIOR_ANSWERS + count)))


def _design_matrix(known: KnownQuestions, first: Floats | None) -> tuple[Floats, Floats, Floats]:
    """Columns (N, k), the guessed weights they are shrunk to, and how firmly."""
    columns, guess = [np.ones(known.total)], [0.0]
    centred = None if first is None else first - 0.5
    if centred is not None:
        columns.append(centred)
        guess.append(_AGREES)
    ease = _standardise_values(known.ease)
    if ease is not None:
        columns.append(ease)
        guess.append(_RISES)
        if centred is not None:
            columns.append(ease * centred)
            guess.append(0.0)
    margin = None if known.margin is None else _standardise_values(np.log1p(np.maximum(known.margin, 0.0)))
    if margin is not None and centred is not None:
        columns += [margin, margin * centred]
        guess += [0.0, 0.0]
    penalty = [_WEAK] * len(columns)
    if known.key is not None:
        last = (known.key == known.key.max()).astype(np.float64)
        effects = [(known.key == place) - last for place in range(int(known.key.max()))]
        columns += effects
        guess += [0.0] * len(effects)
        penalty += [_FIRM] * len(effects)
    return np.column_stack(columns), np.array(guess), np.array(penalty)


def _standardise_values(values: Floats | None) -> Floats | None:
    """Mean 0, standard deviation 1 over the known values; 0 for NaN; None if all known values are equal."""
    if values is None or np.isnan(values).all():
        return None
    spread = float(np.nanstd(values))
    return np.nan_to_num((values - np.nanmean(values)) / spread) if spread > 1e-9 else None


def _fit_ridge_logistic(
    design: Floats, right: Floats, guess: Floats, penalty: Floats, start: Floats
) -> Floats:
    """Ridge logistic regression towards ``guess``, by at most 12 Newton steps from ``start``."""
    if not len(right):
        return guess
    weights = start.copy()
    for _ in range(12):
        share = _logistic_function(design @ weights)
        slope = design.T @ (right - share) - penalty * (weights - guess)
        curve = (design * (share * (1 - share))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights = weights + step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-4:
            break
    return weights


def _logistic_function(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -12.0, 12.0))), dtype=np.float64)
