"""The adaptive order: the same questions, reproducible, valid where nothing differs, and sooner decided."""

import numpy as np
import polars as pl
import pytest

from kmmlu_fast.analysis.sequential import betting
from kmmlu_fast.analysis.sequential.adaptive_order import (
    begin_adaptive_order,
    is_continued_by,
    read_shared_order,
    redraw_remaining,
    weights_from_columns,
    weights_to_columns,
)
from kmmlu_fast.analysis.sequential.question_order import (
    OrderedAnswers,
    QuestionOrder,
    accuracy_interval,
    decide_on_answers,
    stream_of_answers,
)
from kmmlu_fast.analysis.sequential.sampling_weights import list_redraw_places
from kmmlu_fast.core.errors import RunError

N = 4000


class World:
    """A base with margins, and an adapter that changes answers where they are small."""

    def __init__(self, seed: int, noise: float, shift: float) -> None:
        self.draw = np.random.default_rng(seed)
        self.skill = self.draw.normal(size=N)
        score = self.skill + self.draw.normal(size=N)
        self.first, self.margin = score > 0, np.abs(score)
        self.second = score + noise * self.draw.normal(size=N) + shift > 0
        self.ids = tuple(f"Law/test/{place}" for place in range(N))
        self.seed = seed

    def level(self) -> None:
        """Take the difference away, to the question."""
        surplus = int(self.second.sum()) - int(self.first.sum())
        changed = self.second & ~self.first if surplus > 0 else self.first & ~self.second
        self.second[self.draw.choice(np.flatnonzero(changed), abs(surplus), replace=False)] ^= True

    def begin(self) -> QuestionOrder:
        uniform = QuestionOrder(self.ids, np.zeros(N, np.int64), self.skill, self.seed)
        return begin_adaptive_order(uniform, OrderedAnswers(self.first, self.margin))

    def answers(self, order: QuestionOrder) -> tuple[OrderedAnswers, OrderedAnswers]:
        places = np.array([int(name.rpartition("/")[2]) for name in order.ids])
        margin = self.margin[places]
        return OrderedAnswers(self.first[places], margin), OrderedAnswers(self.second[places], margin)

    def redraw(self, order: QuestionOrder, place: int) -> QuestionOrder:
        first, second = self.answers(order)
        return redraw_remaining(order, first, [second], place)

    def ask(self) -> tuple[str, int, QuestionOrder]:
        """Until decided, redrawn on the way."""
        order = self.begin()
        for place in [*list_redraw_places(N), N]:
            first, second = self.answers(order)
            stream = stream_of_answers(order, first, second, most=place)
            verdict, at = betting.first_verdict(stream, margin=None)
            if at is not None or place == N:
                return verdict, at or N, order
            order = self.redraw(order, place)
        raise AssertionError

    def ask_uniformly(self) -> int:
        places = np.random.default_rng(self.seed).permutation(N)
        order = QuestionOrder(
            tuple(self.ids[place] for place in places), np.zeros(N, np.int64), self.skill[places], 0
        )
        stream = stream_of_answers(order, *self.answers(order))
        return betting.first_verdict(stream, margin=None)[1] or N


def test_each_question_is_asked_once_and_the_asked_ones_stay() -> None:
    world = World(0, 0.3, 0.1)
    order = world.begin()
    later = world.redraw(world.redraw(order, 225), 337)
    assert sorted(later.ids) == sorted(world.ids) and later.ids[:225] == order.ids[:225]
    assert later.ids[225:] != order.ids[225:] and later.weights.starts == (0, 225, 337)
    assert is_continued_by(order, later) and not is_continued_by(later, order)
    assert later.ease[:225].tolist() == order.ease[:225].tolist()


def test_a_redraw_depends_on_the_answers_before_it_alone() -> None:
    world = World(1, 0.3, 0.1)
    order = world.begin()
    one = world.redraw(order, 225)
    asked = {int(name.rpartition("/")[2]) for name in order.ids[:225]}
    world.second[[place for place in range(N) if place not in asked]] ^= True
    assert world.redraw(order, 225).ids == one.ids
    world.second[list(asked)] ^= True
    assert world.redraw(order, 225).ids != one.ids


def test_exact_nulls_are_decided_in_less_than_five_percent() -> None:
    decided = 0
    for seed in range(60):
        world = World(1000 + seed, 0.35, 0.05)
        world.level()
        decided += world.ask()[0] in ("better", "worse")
    assert decided <= 6  # 3 expected at most


def test_it_decides_sooner_than_the_uniform_order() -> None:
    worlds = [World(seed, 0.25, 0.06) for seed in range(12)]
    found = [world.ask() for world in worlds]
    assert {verdict for verdict, _, _ in found} == {"better"}
    assert sum(at for _, at, _ in found) < 0.85 * sum(world.ask_uniformly() for world in worlds)


def test_accuracy_is_covered_though_hard_questions_come_first() -> None:
    missed = 0
    for seed in range(30):
        world = World(seed, 0.3, 0.1)
        order = world.redraw(world.begin(), 225)
        _, second = world.answers(order)
        low, high = accuracy_interval(order, OrderedAnswers(second.right[:337], second.margin[:337]))
        missed += not low <= world.second.mean() <= high
    assert missed <= 3


def test_after_all_questions_the_interval_is_the_difference_itself() -> None:
    world = World(2, 0.3, 0.05)
    order = world.redraw(world.begin(), 225)
    decision = decide_on_answers(order, *world.answers(order), margin=None, population="these")
    truth = float(world.second.mean() - world.first.mean())
    assert decision.low == pytest.approx(truth, abs=1e-12) == decision.high


def test_columns_are_read_back_and_damaged_ones_refused() -> None:
    world = World(3, 0.3, 0.05)
    order = world.redraw(world.begin(), 225)
    frame = pl.DataFrame({"question_id": order.ids, "answer": ["A"] * N}).hstack(
        weights_to_columns(order.weights)
    )
    again = read_shared_order([("run", frame)], order.seed, public=False)
    assert again.ids == order.ids and again.weights.starts == order.weights.starts
    pairs = zip(again.weights.values, order.weights.values, strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    assert weights_from_columns(frame.select("question_id", "answer"), "run") is None
    damaged = (frame.with_columns(pl.lit(0, pl.UInt8).alias("weight_0")), frame.drop("weight_0"))
    for each in (*damaged, frame.with_columns(pl.lit("a").alias("weight_225"))):
        with pytest.raises(RunError, match="damaged or edited"):
            weights_from_columns(each, "run")


def test_two_redrawn_orders_are_not_one() -> None:
    world = World(4, 0.3, 0.05)
    begun = world.begin()
    one = world.redraw(begun, 225)
    world.second ^= True
    other = world.redraw(begun, 225)
    assert is_continued_by(begun, one) and is_continued_by(begun, other) and not is_continued_by(one, other)
    frames = [
        (
            name,
            pl.DataFrame({"question_id": order.ids, "answer": ["A"] * N}).hstack(
                weights_to_columns(order.weights)
            ),
        )
        for name, order in (("one", one), ("begun", begun), ("other", other))
    ]
    assert read_shared_order(frames[:2], 4, public=False).weights.starts == (0, 225)
    with pytest.raises(RunError, match="two random orders"):
        read_shared_order(frames, 4, public=False)
