"""A sequential test of whether the second run is better: checked after every answer, valid whenever it stops.

In: an ``AnswerStream`` (``control_variate``): answers in a random order of all N questions, their expectation
subtracted. Out: a ``Decision`` (better, worse, equal within a margin, undecided), a confidence sequence for
the mean over all N, an e-value and its anytime p. The mean is that of these N questions (a finite
population), not of questions like them. Pure, numpy only. Knows nothing of runs.

Testing by betting, without replacement (Waudby-Smith and Ramdas 2024, JRSS-B 86:1; 2020, NeurIPS 33). If the
mean over all N is m, the next x_t has the mean m_t = (N m - S_{t-1}) / (N - t + 1) - (mean of h_t over the
questions from t on), because in a random order the next question is a random draw from the rest. So no bet on
x_t - m_t has a positive expectation, and the capital

    K_t(m) = sum over bets g of w_g * product over s <= t of (1 + b_g,s (x_s - m_s))

is a martingale that starts at 1: it ever reaches 1/a with probability at most a (Ville 1939). Each side bets
with a/2, for "equal" with a. Bets are fixed in advance in units of the spread of past x, grow with
N / (N - t + 1) as fewer questions are left, and are capped so that no answer can cost more than 95 % of the
capital. Their weights are log-normal, around the bet that is best for a difference that about 2,000 answers
reveal (chosen on the public runs, in other orders than those of `bench.decide`). K_t(m) decreases in m, even
if caps bind, so the means that are not refuted form one interval.

Own code, because three libraries do not fit: confseq 0.0.11 (MIT) bets without replacement, but has neither
control variates nor values whose bounds change, its interval is a scan of 1,000 means, it needs Boost to
build and imports matplotlib; expectation 0.6 (GPL with additional terms, Python 3.12) and savvi 0.3
(regressions and multinomial counts) have no sampling without replacement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kmmlu_fast.analysis.sequential.control_variate import AnswerStream
from kmmlu_fast.analysis.sequential.sampling_weights import Floats

ALPHA = 0.05
MARGIN = 0.01  # a difference below this counts as "equal", 0-1
BETTER, WORSE, EQUAL, UNDECIDED = "better", "worse", "equal", "undecided"
Verdict = Literal["better", "worse", "equal", "undecided"]
Population = Literal["like", "these"]

_MOST_LOST = 0.95  # of the capital, by one answer
_MOST_GROWTH = 20.0  # of a bet, as the questions run out
_BETS = np.geomspace(0.004, 0.38, 24)  # in units of 1 / spread: b = bet / spread
_CENTRE, _WIDTH = 0.042, 0.7  # of the log-normal weights
_LOG_WEIGHTS = -0.5 * (np.log(_BETS / _CENTRE) / _WIDTH) ** 2
_LOG_WEIGHTS -= np.log(np.exp(_LOG_WEIGHTS).sum())
_TOLERANCE = 1e-9
_BLOCK = 4096  # answers per block: fits a cache, and nothing after a crossing's block is computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What n answers show about the mean over all N; shares 0-1."""

    verdict: Verdict
    decided_at: int | None  # answers after which the verdict was reached; None = undecided
    answers: int  # n, on which the interval is based
    total: int  # N
    # confidence sequence at 1 - alpha, valid after stopping; of "equal" at 1 - 2 alpha, as it was decided
    low: float
    high: float
    e_value: float  # evidence against "no difference" after n answers; without a difference its mean is <= 1
    p_value: float  # 1 / the largest e-value so far: valid at any time
    alpha: float
    margin: float
    population: Population = "these"  # whose mean: exactly these N questions', or that of questions like them


def decide_stream(
    stream: AnswerStream,
    alpha: float = ALPHA,
    margin: float | None = MARGIN,
    equal_alpha: float | None = None,
) -> Decision:
    """The first verdict reached, checked after each answer. ``margin`` None: never "equal".

    The last of all N answers refutes every mean but the true one. That is arithmetic, not evidence, so it
    counts neither as "better" or "worse" nor for the e-value.
    """
    verdict, at = first_verdict(stream, alpha, margin, equal_alpha)
    if verdict == EQUAL:
        alpha = alpha if equal_alpha is None else equal_alpha
    low, high = confidence_sequence(stream, 2 * alpha if verdict == EQUAL else alpha)
    sides = [log_capital(stream, 0.0, side) for side in (1, -1)]
    evidence = (np.maximum(*sides) - np.log(2.0))[: stream.total - 1]
    last = float(evidence[-1]) if len(evidence) else -np.log(2.0)
    most = float(evidence.max(initial=0.0))
    return Decision(
        verdict=verdict,
        decided_at=at,
        answers=len(stream),
        total=stream.total,
        low=low,
        high=high,
        e_value=float(np.exp(min(last, 700.0))),
        p_value=float(np.exp(-most)),
        alpha=alpha,
        margin=margin or 0.0,
    )


def first_verdict(
    stream: AnswerStream,
    alpha: float = ALPHA,
    margin: float | None = MARGIN,
    equal_alpha: float | None = None,
) -> tuple[Verdict, int | None]:
    """The first verdict and the number of answers that reached it; (undecided, None) if none did before all
    were asked, unless the mean over all is then within the margin ("equal").

    "Equal" refutes each end of the margin at alpha, not alpha / 2: only one of the two can be the truth, and
    a stream that refutes it at alpha / 2 for "worse" or "better" refutes it here as well. So all wrong
    verdicts together have at most probability alpha. ``equal_alpha``: another level for "equal".
    """
    of_equal = alpha if equal_alpha is None else equal_alpha
    verdicts: list[tuple[int, int, Verdict]] = []
    better, worse = (crossing_time(stream, 0.0, side, alpha) for side in (1, -1))
    if better is not None and better < stream.total:
        verdicts.append((better, 0, "better"))
    if worse is not None and worse < stream.total:
        verdicts.append((worse, 1, "worse"))
    if margin:
        above, below = (crossing_time(stream, -side * margin, side, 2 * of_equal) for side in (1, -1))
        if above is not None and below is not None:
            verdicts.append((max(above, below), 2, "equal"))
    if verdicts:
        at, _, verdict = min(verdicts)
        return verdict, at
    if len(stream) == stream.total and abs(confidence_sequence(stream, alpha)[0]) <= (margin or 0.0):
        return "equal", len(stream)
    return "undecided", None


def crossing_time(stream: AnswerStream, mean: float, side: int, alpha: float = ALPHA) -> int | None:
    """Answers after which "the mean is ``mean`` or below" (side 1; -1: or above) was refuted at alpha / 2;
    None if it never was.
    """
    threshold = np.log(2.0 / alpha)
    for end, capital in _capital_in_blocks(stream, mean, side):
        reached = capital >= threshold
        if reached.any():
            return end - len(capital) + int(np.argmax(reached)) + 1
    return None


def log_capital(stream: AnswerStream, mean: float, side: int) -> Floats:
    """(n,) natural log of the capital after each answer, against "the mean is ``mean`` or below" (side 1; -1:
    or above).
    """
    return np.concatenate([np.zeros(0), *(capital for _, capital in _capital_in_blocks(stream, mean, side))])


def confidence_sequence(
    stream: AnswerStream, alpha: float = ALPHA, resolution: float = 2e-6
) -> tuple[float, float]:
    """The means that no answer so far has refuted, each side at alpha / 2: the intersection over all times
    until now.

    By bisection, to ``resolution``, rounded outwards. After all N answers it is the mean itself. If every
    mean was refuted from one side or the other (in less than alpha of the cases), the ends meet.
    """
    if not len(stream):
        return (-1.0, 1.0)
    floor, ceiling = float(stream.floor.max()), float(stream.ceiling.min())
    if len(stream) == stream.total:
        exact = (stream.before[-1] + (stream.value[-1] + stream.expected[-1])) / stream.total
        return float(exact), float(exact)
    middle = float(np.clip(estimate_mean(stream), floor, ceiling))
    low = _bisect_bound(stream, floor, middle, 1, alpha, resolution)
    high = _bisect_bound(stream, ceiling, middle, -1, alpha, resolution)
    return (low, high) if low <= high else ((low + high) / 2,) * 2


def _bisect_bound(
    stream: AnswerStream, refuted: float, kept: float, side: int, alpha: float, resolution: float
) -> float:
    """The last refuted mean, between ``refuted`` and, unless it is refuted itself, ``kept``."""
    if crossing_time(stream, kept, side, alpha) is not None:  # rare: an earlier answer refuted the estimate
        refuted, kept = kept, float(stream.ceiling.min() if side > 0 else stream.floor.max())
    while abs(kept - refuted) > resolution:
        middle = (kept + refuted) / 2
        if crossing_time(stream, middle, side, alpha) is None:
            kept = middle
        else:
            refuted = middle
    return refuted


def estimate_mean(stream: AnswerStream) -> float:
    """The expectation for all, corrected by the answers: a start for the bisection, not a result."""
    n = len(stream)
    left = stream.total - n + 1
    expected_of_all = stream.before[-1] + stream.expected[-1] * left
    return float((expected_of_all + stream.value.mean() * left) / stream.total)


def _capital_in_blocks(stream: AnswerStream, mean: float, side: int) -> Iterator[tuple[int, Floats]]:
    """(end, log capital after each answer of the block that ends there), block by block."""
    logs = _LOG_WEIGHTS[:, None]
    start = 0
    while start < len(stream):
        block = slice(start, min(len(stream), start + _BLOCK))
        left = stream.total - np.arange(block.start, block.stop)
        due = (stream.total * mean - stream.before[block]) / left - stream.expected[block]
        won = side * (stream.value[block] - due)
        # the most that a bet of 1 can lose
        room = due - stream.least[block] if side > 0 else stream.most[block] - due
        growth = np.minimum(stream.total / left, _MOST_GROWTH) / stream.spread[block]
        bets = np.minimum(_BETS[:, None] * growth, _MOST_LOST / np.maximum(room, _TOLERANCE))
        logs = logs[:, -1:] + np.cumsum(np.log1p(bets * won), axis=1)
        most = logs.max(axis=0)
        capital = most + np.log(np.exp(logs - most).sum(axis=0))
        if side > 0:
            impossible = stream.floor[block] > mean + _TOLERANCE
        else:
            impossible = stream.ceiling[block] < mean - _TOLERANCE
        capital[impossible] = np.inf  # no answers to the remaining questions could give that mean
        yield block.stop, capital
        start = block.stop
