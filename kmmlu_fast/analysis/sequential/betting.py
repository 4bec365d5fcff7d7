"""Is the second run better? Asked after every question, settled as early as may be; valid after stopping.

In: a ``Stream`` (``sequential_control``): answers in a random order of all N questions, expectations taken
off. Out: a ``Decision`` (better, worse, equal within a margin, undecided), a confidence sequence for the mean
over all N, an e-value and its anytime p. The mean is that of these N questions (a finite population), not of
questions like them. Pure, numpy only. Knows nothing of runs.

Testing by betting, without replacement (Waudby-Smith and Ramdas 2024, JRSS-B 86:1; 2020, NeurIPS 33). Were
the mean over all N equal to m, the next x_t would have the mean m_t = (N m - S_{t-1}) / (N - t + 1) - (mean
of h_t over the questions from t on): of a random order, what is left is a random draw. So no bet on x_t - m_t
can be expected to win, and the capital

    K_t(m) = sum over bets g of w_g * product over s <= t of (1 + b_g,s (x_s - m_s))

is a martingale that starts at 1: it ever reaches 1/a with probability a at most (Ville 1939). Each side bets
with a/2. Bets are fixed in advance in units of the spread of x on the past, grow with N / (N - t + 1) as what
is left shrinks, and are capped so that no answer can take more than 95 % of the capital; their weights are
log-normal, around the bet that is best for a difference that some 2,000 answers show (chosen on the public
runs, in other orders than those of `bench.decide`). K_t(m) falls in m, also where caps bind, so the means
that are not refuted are one interval.

Own code, after reading three libraries: confseq 0.0.11 (MIT) bets without replacement, but has neither
control variates nor values whose bounds move, its interval is a scan of 1,000 means, it needs Boost to build
and imports matplotlib; expectation 0.6 (GPL, other terms added, Python 3.12) and savvi 0.3 (regressions and
multinomial counts) have no sampling without replacement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kmmlu_fast.analysis.sequential.control_variate import AnswerStream, Floats

ALPHA = 0.05
MARGIN = 0.01  # "equal" means: closer than this, 0-1
BETTER, WORSE, EQUAL, UNDECIDED = "better", "worse", "equal", "undecided"
Verdict = Literal["better", "worse", "equal", "undecided"]

_MOST_LOST = 0.95  # of the capital, by one answer
_MOST_GROWTH = 20.0  # of a bet, as the questions run out
_BETS = np.geomspace(
    0.004, 0.38, 24
)  # expected gain in standard deviations, the whole being small: b = bet / spread
_CENTRE, _WIDTH = 0.042, 0.7  # of the log-normal weights
_LOG_WEIGHTS = -0.5 * (np.log(_BETS / _CENTRE) / _WIDTH) ** 2
_LOG_WEIGHTS -= np.log(np.exp(_LOG_WEIGHTS).sum())
_TOLERANCE = 1e-9
_BLOCK = (
    4096  # answers at a time: a crossing is found without computing all that follows it, and it fits a cache
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What n answers say of the mean over all N; shares 0-1."""

    verdict: Verdict
    decided_at: int | None  # answers after which the verdict stood; None = undecided
    answers: int  # n, that the interval is from
    total: int  # N
    low: float  # confidence sequence, at 1 - alpha, also after stopping; never wider than it was before
    high: float
    e_value: (
        float  # evidence against "no difference" after n answers: if there is none, its mean is 1 at most
    )
    p_value: float  # 1 / the largest e-value so far: valid at any time
    alpha: float
    margin: float


def decide_stream(stream: AnswerStream, alpha: float = ALPHA, margin: float | None = MARGIN) -> Decision:
    """The verdict after each answer in turn; the first that decides stays. ``margin`` None: never "equal".

    The last of all N answers settles every mean but the true one: that is arithmetic and no evidence, and
    counts neither as "better" or "worse" nor for the e-value.
    """
    verdict, at = first_verdict(stream, alpha, margin)
    low, high = confidence_sequence(stream, alpha)
    sides = [log_capital(stream, 0.0, side) for side in (1, -1)]
    evidence = (np.maximum(*sides) - np.log(2.0))[: stream.total - 1]
    last, most = (float(evidence[-1]), float(evidence.max())) if len(evidence) else (-np.log(2.0), 0.0)
    p_value = float(np.exp(-max(most, 0.0)))
    e_value = float(np.exp(min(last, 700.0)))
    return Decision(
        verdict=verdict,
        decided_at=at,
        answers=len(stream),
        total=stream.total,
        low=low,
        high=high,
        e_value=e_value,
        p_value=p_value,
        alpha=alpha,
        margin=margin or 0.0,
    )


def first_verdict(
    stream: AnswerStream, alpha: float = ALPHA, margin: float | None = MARGIN
) -> tuple[Verdict, int | None]:
    """The first verdict that stood and after how many answers, from 1; (undecided, None) where none did
    before all were asked, unless the mean over all is then within the margin ("equal").
    """
    found: list[tuple[int, int, Verdict]] = []
    if (at := crossing_time(stream, 0.0, 1, alpha)) is not None and at < stream.total:
        found.append((at, 0, "better"))
    if (at := crossing_time(stream, 0.0, -1, alpha)) is not None and at < stream.total:
        found.append((at, 1, "worse"))
    if margin:
        above, below = crossing_time(stream, -margin, 1, alpha), crossing_time(stream, margin, -1, alpha)
        if above is not None and below is not None:
            found.append((max(above, below), 2, "equal"))
    if not found:
        over = len(stream) == stream.total and abs(confidence_sequence(stream, alpha)[0]) <= (margin or 0.0)
        return ("equal", len(stream)) if over else ("undecided", None)
    at, _, verdict = min(found)
    return verdict, at


def crossing_time(stream: AnswerStream, mean: float, side: int, alpha: float = ALPHA) -> int | None:
    """Answers after which "the mean is ``mean`` or below" (side 1; -1: or above) was refuted at alpha / 2;
    None where it never was.
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

    By bisection, to ``resolution`` and outwards. After all N answers it is the mean itself. Where every mean
    was refuted by one side or the other (in less than alpha of the cases) the ends meet.
    """
    if not len(stream):
        return (-1.0, 1.0)
    floor, ceiling = float(stream.floor.max()), float(stream.ceiling.min())
    if len(stream) == stream.total:
        exact = (stream.before[-1] + (stream.value[-1] + stream.expected[-1])) / stream.total
        return float(exact), float(exact)
    middle = float(np.clip(_estimate_mean(stream), floor, ceiling))
    low = _bisect_bound(stream, floor, middle, 1, alpha, resolution)
    high = _bisect_bound(stream, ceiling, middle, -1, alpha, resolution)
    return (low, high) if low <= high else ((low + high) / 2,) * 2


def _bisect_bound(
    stream: AnswerStream, refuted: float, kept: float, side: int, alpha: float, resolution: float
) -> float:
    """Between a mean at or beyond the last refuted one and, if that is not refuted, one that is kept."""
    if (
        crossing_time(stream, kept, side, alpha) is not None
    ):  # rare: an earlier interval has passed the present estimate
        refuted, kept = kept, float(stream.ceiling.min() if side > 0 else stream.floor.max())
    while abs(kept - refuted) > resolution:
        middle = (kept + refuted) / 2
        if crossing_time(stream, middle, side, alpha) is None:
            kept = middle
        else:
            refuted = middle
    return refuted


def _estimate_mean(stream: AnswerStream) -> float:
    """What was expected of all, corrected by what was found: where to look for the interval, not a result."""
    n = len(stream)
    left = stream.total - n + 1
    expected_of_all = stream.before[-1] + stream.expected[-1] * left
    return float((expected_of_all + stream.value.mean() * left) / stream.total)


def _capital_in_blocks(stream: AnswerStream, mean: float, side: int) -> Iterator[tuple[int, Floats]]:
    """(end, log capital of the answers up to end), block after block."""
    logs = _LOG_WEIGHTS[:, None]
    start = 0
    while start < len(stream):
        block = slice(start, min(len(stream), start + _BLOCK))
        left = stream.total - np.arange(block.start, block.stop)
        due = (stream.total * mean - stream.before[block]) / left - stream.expected[block]
        won = side * (stream.value[block] - due)
        room = (
            due - stream.least[block] if side > 0 else stream.most[block] - due
        )  # the most that can be lost on a bet of 1
        growth = np.minimum(stream.total / left, _MOST_GROWTH) / stream.spread[block]
        bets = np.minimum(_BETS[:, None] * growth, _MOST_LOST / np.maximum(room, _TOLERANCE))
        logs = logs[:, -1:] + np.cumsum(np.log1p(bets * won), axis=1)
        most = logs.max(axis=0)
        capital = most + np.log(np.exp(logs - most).sum(axis=0))
        gone = (
            stream.floor[block] > mean + _TOLERANCE if side > 0 else stream.ceiling[block] < mean - _TOLERANCE
        )
        capital[gone] = np.inf  # no answers to what is left could give that mean any more
        yield block.stop, capital
        start = block.stop
