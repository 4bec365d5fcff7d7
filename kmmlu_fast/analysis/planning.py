"""How many questions show a difference: before asking, from a base's margins, and while asking.

In: the difference to be shown, how many questions an adapter changes (the discordance), how many there are.
Out: numbers of questions, standard errors. Pure. Knows nothing of runs, engines or words.

Fixed number: Connor (1987, Biometrics 43:207), 80 % power. Until decided: n = n0 / (1 + n0 / N),
n0 = 2 v (ln(2 / alpha) + 1.9) / d^2, v the variance of an answer's difference around its expectation: .76 of
the discordance in the uniform order (public runs), .26 and 500 questions at the start in the adaptive one
(``bench.decide --adapters``). Both are means: a single run may need half or twice as many.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.analysis.sequential.betting import ALPHA, MARGIN, estimate_mean
from kmmlu_fast.analysis.sequential.control_variate import AnswerStream

TYPICAL_SHIFT_NATS = 0.4  # standard deviation of what an adapter adds to a letter's log-probability
POWER = 0.8
_UNIFORM_SHARE, _ADAPTIVE_SHARE, _ADAPTIVE_START = 0.76, 0.26, 500.0
_NO_GAIN = 1.2  # a large difference takes a few more questions in the adaptive order
_OVERSHOOT = 1.9  # nats of capital that bets lose by not knowing the difference


def expect_discordance(
    margin: NDArray[np.float64], right: NDArray[np.bool_], shift_nats: float = TYPICAL_SHIFT_NATS
) -> float:
    """The share of questions on which an adapter would be right and the base wrong, or the reverse, 0-1.

    ``margin``: nats between the base's two best letters. The two letters' difference moves by a normal shift,
    so the second letter wins with the probability that it exceeds the margin. If the base is wrong, the
    second letter is right as often as one of the others by chance: a third of the time.
    """
    known = ~np.isnan(margin)
    if not known.any():
        return math.nan
    scale = shift_nats * math.sqrt(2.0)
    z = np.minimum(margin[known] / scale, 40.0)
    turned = np.array([NormalDist().cdf(-float(value)) for value in np.round(z, 3)])
    return float(np.mean(turned * np.where(right[known], 1.0, 1.0 / 3.0)))


def questions_for_fixed_size(
    difference: float, discordance: float, alpha: float = ALPHA, power: float = POWER
) -> int:
    """Questions with which McNemar's test shows ``difference`` (0-1) with this power: Connor's formula."""
    size = abs(difference)
    _check_difference(size, discordance)
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2) * math.sqrt(discordance)
    z += normal.inv_cdf(power) * math.sqrt(max(discordance - size**2, 0.0))
    return math.ceil((z / size) ** 2)


def questions_until_decided(
    difference: float, discordance: float, total: int, *, adaptive: bool, alpha: float = ALPHA
) -> int:
    """Mean questions of ``total`` until the sequential test shows ``difference`` (0-1)."""
    size = abs(difference)
    _check_difference(size, discordance)
    needed = _questions_for_variance(_UNIFORM_SHARE * discordance, size, 2 / alpha)
    if adaptive:
        after_start = _questions_for_variance(_ADAPTIVE_SHARE * discordance, size, 2 / alpha)
        needed = min(after_start + _ADAPTIVE_START, _NO_GAIN * needed)
    return _limit_to_total(needed, total)


def forecast_answers(stream: AnswerStream, alpha: float = ALPHA, margin: float | None = MARGIN) -> int | None:
    """About how many answers decide, if the rest is like the answers so far; None if that may take all.

    A guess from a noisy estimate: it is shown, and decides nothing.
    """
    if len(stream) < 2:
        return None
    variance, size = float(stream.spread[-1]) ** 2, abs(estimate_mean(stream))
    needs = [_questions_for_variance(variance, size, 2 / alpha)] if size > 0 else []
    if margin and size < margin:
        needs.append(_questions_for_variance(variance, margin - size, 1 / alpha))
    answers = _limit_to_total(min(needs, default=math.inf), stream.total)
    if answers >= 0.95 * stream.total:
        return None
    return max(answers, len(stream) + 1)


def questions_to_narrow(answers: int, total: int, half_width: float, wanted: float) -> int:
    """About how many of ``total`` questions give an interval of half-width ``wanted``, to two digits, if
    ``answers`` gave ``half_width``; both 0-1.
    """
    if answers >= total:
        return total
    as_infinite = answers / (1.0 - answers / total)
    needed = _limit_to_total(as_infinite * (half_width / wanted) ** 2, total)
    return min(total, _round_up_to_two_digits(needed))


def questions_for_effect(questions: int, effect: float, wanted: float) -> int:
    """About how many questions show ``wanted`` (0-1), to two digits, if ``questions`` show ``effect``: the
    standard error shrinks with their square root.
    """
    return _round_up_to_two_digits(questions * (effect / wanted) ** 2)


def _round_up_to_two_digits(needed: float) -> int:
    step: int = 10 ** max(0, math.floor(math.log10(max(needed, 1.0))) - 1)
    return math.ceil(needed / step) * step


def standard_error_of_recipe(
    between_seeds: float, discordance: float, questions: int, seeds: int, shared: float = 0.5
) -> float:
    """Standard error of a recipe's mean difference, 0-1: sqrt(tau^2 / s + own / (n s) + common / n).

    ``between_seeds``: tau, standard deviation of the true difference between seeds, 0-1; ``shared``: the
    share of a question's variance that all seeds have in common.
    """
    own, common = (1 - shared) * discordance, shared * discordance
    return math.sqrt(between_seeds**2 / seeds + own / (questions * seeds) + common / questions)


def _check_difference(size: float, discordance: float) -> None:
    if not 0 < size <= discordance <= 1:
        raise ValueError(f"a difference of {size} needs a discordance between it and 1, not {discordance}")


def _questions_for_variance(variance: float, size: float, evidence: float) -> float:
    return 2.0 * variance * (math.log(evidence) + _OVERSHOOT) / size**2


def _limit_to_total(needed: float, total: int) -> int:
    return total if math.isinf(needed) else math.ceil(needed / (1.0 + needed / total))
