"""Several adapters of one base in one evaluation: which are decided, and which one is best.

In: decisions by level, or the adapters' answers along one order. Out: the decided ones (Holm's procedure), or
the state of a race. Pure. Knows nothing of runs or words.

Holm (1979): with K adapters of which j are shown to be better or worse, the next is tested at
alpha / (K - j); "equal" likewise, with the number shown to be equal. So all false "better" and "worse"
together have at most probability alpha, and so have all false "equal". One count for both would not do: that
an adapter is equal to the base says nothing about how many others may be called different by mistake. Tests
that are valid at any time keep this valid whenever asking stops.

The race: an adapter loses as soon as another is shown to be better at alpha / (K - 1), one-sided. The best
adapter is compared with K - 1 others, so it loses with probability alpha at most. The race ends when one is
left, or when no other can be better than the leader by the margin or more. The same bound covers both claims,
because refuting "better than the leader by the margin" is a part of refuting "not worse than the leader".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Protocol, TypeVar

from kmmlu_fast.analysis.sequential.betting import ALPHA, EQUAL, UNDECIDED, crossing_time, estimate_mean
from kmmlu_fast.analysis.sequential.control_variate import AnswerStream, paired_stream
from kmmlu_fast.analysis.sequential.question_order import OrderedAnswers, QuestionOrder, describe_questions


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceState:
    """What the answers so far show about which adapter is best."""

    left: tuple[str, ...]  # not shown to be worse than another
    lost_to: dict[str, str]  # loser -> an adapter shown to be better
    # shown to be the best, or (if several are left) within the margin of it; None while the race goes on
    best: str | None


class _HasVerdict(Protocol):
    @property
    def verdict(self) -> str: ...


D = TypeVar("D", bound=_HasVerdict)


def decide_by_holm(
    names: Sequence[str], decide: Callable[[str, float, float], D], alpha: float = ALPHA
) -> dict[str, D]:
    """Each name's decision at its level in Holm's procedure; an undecided one is as of the last levels.

    ``decide(name, level, equal_level)``: one's decision at a level for better and worse, and one for equal.
    """
    decided: dict[str, D] = {}
    while True:
        equal = sum(decision.verdict == EQUAL for decision in decided.values())
        level = alpha / max(1, len(names) - len(decided) + equal)
        equal_level = alpha / max(1, len(names) - equal)
        latest = {name: decide(name, level, equal_level) for name in names if name not in decided}
        new = {name: decision for name, decision in latest.items() if decision.verdict != UNDECIDED}
        if not new:
            return {name: decided.get(name) or latest[name] for name in names}
        decided |= new


def run_race(
    order: QuestionOrder,
    answers: Mapping[str, OrderedAnswers],
    base: OrderedAnswers | None = None,
    alpha: float = ALPHA,
    margin: float | None = None,
) -> RaceState:
    """Who is left after these answers. Each pair is compared on the questions both have from the order's
    beginning; ``base``: all answers of the base, if it is complete.
    """
    names = list(answers)
    level = 2 * alpha / max(1, len(names) - 1)  # ``crossing_time`` refutes at half of its alpha
    leads: dict[tuple[str, str], Callable[[float], bool]] = {}
    means = dict.fromkeys(names, 0.0)
    for first, second in combinations(names, 2):
        stream = _stream_of_pair(order, answers[first], answers[second], base)
        leads[second, first] = partial(_is_ahead, stream, 1, level)
        leads[first, second] = partial(_is_ahead, stream, -1, level)
        ahead = estimate_mean(stream) if len(stream) else 0.0
        means[second] += ahead
        means[first] -= ahead
    lost_to: dict[str, str] = {}
    for (winner, loser), shown in leads.items():
        if loser not in lost_to and shown(0.0):
            lost_to[loser] = winner
    left = tuple(name for name in names if name not in lost_to) or tuple(names)
    if len(left) == 1:
        return RaceState(left=left, lost_to=lost_to, best=left[0])
    if margin:
        leader = max(left, key=lambda name: means[name])
        if all(leads[leader, other](margin) for other in left if other != leader):
            return RaceState(left=left, lost_to=lost_to, best=leader)
    return RaceState(left=left, lost_to=lost_to, best=None)


def _is_ahead(stream: AnswerStream, side: int, level: float, margin: float) -> bool:
    """Whether one of a pair (the second: side 1) is shown to be less than ``margin`` behind the other; for a
    margin of 0: ahead.
    """
    return crossing_time(stream, -side * margin, side, level) is not None


def _stream_of_pair(
    order: QuestionOrder, first: OrderedAnswers, second: OrderedAnswers, base: OrderedAnswers | None
) -> AnswerStream:
    n = min(len(first), len(second))
    one, other = first.right[:n], second.right[:n]
    if base is None or len(base) < len(order):
        return paired_stream(one, other, describe_questions(order), ahead=False)
    known = describe_questions(order, base.margin)
    return paired_stream(one, other, known, ahead=False, reference=base.right)
