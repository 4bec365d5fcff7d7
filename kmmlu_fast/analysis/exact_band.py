"""Exact intervals for a change on the same questions, and a band over any number of looks at them.

In: how many questions changed one way and the other, of how many; the number of the look. Out: an interval
for the expected change on questions like these. Pure. Knows nothing of models or training.

Of n questions, G changed to "yes" (right, or a certain letter) and L to "no". G + L is binomial (n, changed)
and G given G + L is binomial (G + L, share), so two exact binomial intervals (Clopper and Pearson 1934,
Biometrika 26:404) bound the expected change, changed * (2 share - 1), together. Most of the error goes to the
share, which alone decides whether zero is excluded; that is then McNemar's exact test.

A band over looks: look k gets 6 alpha / (pi^2 k^2), which sums to alpha over any number of looks
(``error_spending``). This needs nothing of how the looks depend on each other: the same questions each time,
a model that drifts, looks chosen by earlier ones. It holds whenever the training stops.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmmlu_fast.analysis.error_spending import spending_share
from kmmlu_fast.analysis.paired import ALPHA

_OF_SHARE = 0.9  # of the error, for the share of changes that are gains


@dataclass(frozen=True, slots=True)
class ChangeInterval:
    """A change, 0-1, with its interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0


def binomial_interval(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a share at 1 - ``alpha``; (0, 1) without trials."""
    from scipy.special import betaincinv

    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, alpha / 2))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - alpha / 2))
    return low, high


def exact_change_interval(gained: int, lost: int, questions: int, alpha: float = ALPHA) -> ChangeInterval:
    """The change (gained - lost) / questions with an interval of at least 1 - ``alpha``."""
    changed = gained + lost
    share_low, share_high = binomial_interval(gained, changed, _OF_SHARE * alpha)
    rate_low, rate_high = binomial_interval(changed, questions, (1 - _OF_SHARE) * alpha)
    least, most = 2 * share_low - 1, 2 * share_high - 1
    return ChangeInterval(
        (gained - lost) / questions,
        least * (rate_low if least > 0 else rate_high),
        most * (rate_high if most > 0 else rate_low),
    )


def exact_change_band(gained: int, lost: int, questions: int, look: int, among: int = 1) -> ChangeInterval:
    """The interval of look number ``look`` (1, 2, ...): all looks together miss in at most 5 %.

    ``among``: comparisons that are looked at each time and share the error.
    """
    return exact_change_interval(gained, lost, questions, ALPHA * spending_share(look) / among)


def exact_change_p_value(gained: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test; 1 if nothing changed."""
    from scipy.special import bdtr

    changed = gained + lost
    return min(1.0, 2 * float(bdtr(min(gained, lost), changed, 0.5))) if changed else 1.0
