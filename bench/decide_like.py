"""Adapters of a finished base under the default population (questions like these), in exams of two sizes.

In: invented bases (``decide_adapters``). Out: decisions where two draws of one model are compared along an
adaptive order; mean questions of both orders in an exam of 1,000 and in all of KMMLU, for both populations.
No engine.

Two draws of one model: the base's scores twice, each with half of the noise. Neither is better in general,
but over a finite set of questions one is, by luck: "these" would be right to find it, "like" must not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common import note, table
from bench.decide_adapters import Base
from kmmlu_fast.analysis.sequential.adaptive_order import begin_adaptive_order, redraw_remaining
from kmmlu_fast.analysis.sequential.betting import Decision, Population
from kmmlu_fast.analysis.sequential.question_order import OrderedAnswers, QuestionOrder, decide_on_answers
from kmmlu_fast.analysis.sequential.sampling_weights import list_redraw_places

Rights = NDArray[np.bool_]
NULL_SIZES, NULL_NOISE = (450, 2_250), (0.25, 0.62)
EXAMS = {1_000: (0.01, 0.02, 0.04, 0.06, 0.1), 35_030: (0.005, 0.01, 0.02, 0.04)}  # questions: differences
NOISE = 0.42
FULL_SHARE = 0.2  # of the repeats that all of KMMLU gets
POPULATIONS: tuple[Population, ...] = ("like", "these")


class SmallBase(Base):
    """A base on ``total`` of the questions."""

    def __init__(self, draw: np.random.Generator, total: int) -> None:
        super().__init__(draw)
        chosen = draw.choice(self.total, total, replace=False)
        self.total, self.ids = total, [self.ids[place] for place in chosen]
        self.ease, self.key = self.ease[chosen], self.key[chosen]
        self._answer_with(self.scores[chosen])

    def _answer_with(self, scores: NDArray[np.float64]) -> None:
        self.scores, self.right = scores, self._right(scores)
        ranked = np.sort(scores, axis=1)
        self.margin = ranked[:, 3] - ranked[:, 2]

    def redraw_twin(self, noise: float) -> Rights:
        """Makes this base one of two draws of a model; returns the other's answers."""
        mean, half = self.scores, noise / 2**0.5
        self._answer_with(mean + self._draw.normal(0, half, mean.shape))
        return self._right(mean + self._draw.normal(0, half, mean.shape))


def decide_in_order(
    base: Base, second: Rights, seed: int, population: Population, *, adaptive: bool
) -> Decision:
    """The adapter's decision along an order of its own; undecided after all questions if nothing is shown."""
    where = {question_id: place for place, question_id in enumerate(base.ids)}
    order = QuestionOrder(tuple(base.ids), base.key, base.ease, seed)
    redraws = list_redraw_places(base.total) if adaptive else []
    if adaptive:
        order = begin_adaptive_order(order, OrderedAnswers(base.right, base.margin))
    else:
        drawn = np.random.default_rng(seed).permutation(base.total)
        ids = tuple(base.ids[place] for place in drawn)
        order = QuestionOrder(ids, base.key[drawn], base.ease[drawn], seed)
    for place in [*redraws, base.total]:
        places = np.array([where[name] for name in order.ids])
        first = OrderedAnswers(base.right[places], base.margin[places])
        answers = OrderedAnswers(second[places][:place], first.margin[:place])
        decision = decide_on_answers(order, first, answers, margin=None, population=population)
        if decision.decided_at is not None or place == base.total:
            break
        order = redraw_remaining(order, first, [answers], place)
    return decision


def measure_like(nulls: int, repeats: int, seed: int) -> dict[str, Any]:
    """``nulls`` pairs of draws of one model for each size and noise; ``repeats`` adapters for each row."""
    from bench.decide import share

    draw = np.random.default_rng([seed, 13])
    decided, of = 0, 0
    for total in NULL_SIZES:
        for noise in NULL_NOISE:
            note(f"decide: {nulls} draws of one model, {total:,} questions")
            for _ in range(nulls):
                base = SmallBase(draw, total)
                twin = base.redraw_twin(noise)
                found = decide_in_order(base, twin, int(draw.integers(2**31)), "like", adaptive=True)
                decided, of = decided + (found.verdict in ("better", "worse")), of + 1
    result: dict[str, Any] = {"exams": {}}
    for total, differences in EXAMS.items():
        times = max(1, round(repeats * (FULL_SHARE if total > 10_000 else 1.0)))
        result["exams"][str(total)] = _measure_exam(total, differences, times, draw)
    if of:
        result["like_null_decided_share"] = share(decided, of)
    return result


def _measure_exam(
    total: int, differences: Sequence[float], repeats: int, draw: np.random.Generator
) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean questions by population, difference in pp and order."""
    from bench.decide import mean_of

    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in POPULATIONS}
    for difference in differences:
        note(f"decide: {total:,} questions, {100 * difference:g} pp")
        counts: dict[tuple[str, str], list[int]] = {}
        for _ in range(repeats):
            base = SmallBase(draw, total)
            second, seed = base.adapter(NOISE, difference), int(draw.integers(2**31))
            for population in POPULATIONS:
                for order in ("uniform", "adaptive"):
                    decision = decide_in_order(base, second, seed, population, adaptive=order == "adaptive")
                    counts.setdefault((population, order), []).append(decision.decided_at or total)
        for (name, order), values in counts.items():
            found[name].setdefault(f"{100 * difference:g}", {})[order] = mean_of(values)
    return found


def tables_of_like(result: dict[str, Any]) -> list[str]:
    """What people read."""
    tables = []
    for total, populations in result["exams"].items():
        rows = [
            {"verdict about questions": population, "difference, pp": name, "order": order, **row}
            for population in POPULATIONS
            for name, orders in populations[population].items()
            for order, row in orders.items()
        ]
        tables.append(table(f"Questions of {int(total):,} until an adapter is decided", rows))
    return tables
