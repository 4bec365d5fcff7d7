"""When a question's vote is settled, so that no further sample need be drawn.

In: the letters of the samples drawn so far, how many there may be, a rule. Out: how many more to draw before
looking again; 0 if the vote is settled. Knows nothing of engines or texts.

* exact: the remaining samples cannot change the majority. Same votes as with all samples, by construction.
* likely: they change it with less than ``RISK`` probability, if only the two leading letters mattered: with a
  uniform prior on the leader's share p of these two, its votes among the remaining r are beta-binomial,
  P(x) = C(r, x) B(x + 1 + a, r - x + 1 + b) / B(1 + a, 1 + b) for a and b votes so far (Aggarwal et al. 2023,
  "Let's Sample Step by Step", EMNLP, stop by the same posterior without its end). A tie counts as a change.

Samples are drawn in rounds of as many as the vote needs at least, so none is drawn that a settled vote would
have spared.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from kmmlu_fast.core.schema import OPTION_LETTERS

VoteStopping = Literal["none", "exact", "likely"]
RISK = 0.05


def count_samples_to_draw(votes: Sequence[str | None], total: int, rule: VoteStopping) -> int:
    """How many samples to draw before the vote can be settled, if all go to the leader; 0 if it is."""
    remaining = total - len(votes)
    if rule == "none":
        return remaining
    leader, second = _leading_counts(votes)
    return next(
        more for more in range(remaining + 1) if _is_settled(leader + more, second, remaining - more, rule)
    )


def count_samples_drawn(votes: Sequence[str | None], rule: VoteStopping) -> int:
    """How many of these samples the rule would have drawn, in this order."""
    drawn = 0
    while more := count_samples_to_draw(votes[:drawn], len(votes), rule):
        drawn += more
    return drawn


def first_round(total: int, rule: VoteStopping) -> int:
    """Samples that every question gets, whatever they say."""
    return count_samples_to_draw((), total, rule)


def _leading_counts(votes: Sequence[str | None]) -> tuple[int, int]:
    counts = sorted(Counter(votes).values(), reverse=True)
    leader, second, *_ = [*counts, 0, 0]
    return leader, second


def _is_settled(leader: int, second: int, remaining: int, rule: VoteStopping) -> bool:
    if leader - second > remaining or remaining == 0:
        return True
    return rule == "likely" and change_probability(leader, second, remaining) < RISK


@functools.cache
def change_probability(leader: int, second: int, remaining: int) -> float:
    """Probability that the second letter reaches the leader within the remaining samples; see the module."""
    needed = leader - second  # of the remaining r, second gets y and the leader r - y: y >= r - y + needed
    first = math.ceil((remaining + needed) / 2)
    total = _log_beta(1 + leader, 1 + second)
    terms = (
        math.comb(remaining, gained)
        * math.exp(_log_beta(1 + leader + remaining - gained, 1 + second + gained) - total)
        for gained in range(first, remaining + 1)
    )
    return math.fsum(terms)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def majority_vote(letters: Sequence[str], logprobs: Sequence[float] | None) -> tuple[str, float]:
    """The most frequent letter and its share. A tie goes to the higher log-probability, or without
    log-probabilities to the earlier sample.
    """
    counts = Counter(letters)
    most = max(counts.values())
    tied = [letter for letter in counts if counts[letter] == most]  # in the order of the samples
    best = max(tied, key=lambda letter: logprobs[OPTION_LETTERS.index(letter)]) if logprobs else tied[0]
    return best, most / len(letters)
