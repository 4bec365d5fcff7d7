"""Several adapters at once: Holm over them, and the race for the best."""

from types import SimpleNamespace

import numpy as np
import pytest

from kmmlu_fast.analysis.sequential.question_order import OrderedAnswers, QuestionOrder
from kmmlu_fast.analysis.sequential.several import decide_by_holm, run_race


def _decide_from(p_values):
    def decide(name, level, equal_level):
        verdict = "better" if p_values[name] <= level else "undecided"
        if name.startswith("equal"):
            verdict = "equal" if p_values[name] <= equal_level else "undecided"
        return SimpleNamespace(verdict=verdict, alpha=level)

    return decide


@pytest.mark.parametrize(
    ("p_values", "decided"),
    [
        ({"a": 0.016, "b": 0.024, "c": 0.049}, "abc"),  # .05 / 3, .05 / 2, .05
        ({"a": 0.016, "b": 0.026, "c": 0.04}, "a"),
        ({"a": 0.017, "b": 0.02, "c": 0.02}, ""),
        ({"a": 0.05}, "a"),
        ({}, ""),
    ],
)
def test_holm_tests_the_rest_at_what_is_left(p_values, decided):
    found = decide_by_holm(list(p_values), _decide_from(p_values))
    assert {name for name, each in found.items() if each.verdict == "better"} == set(decided)
    left = len(p_values) - len(decided)
    assert all(each.alpha == 0.05 / left for each in found.values() if each.verdict == "undecided")


def test_equal_ones_free_nothing_for_better_and_worse():
    p_values = {"equal 1": 0.016, "equal 2": 0.024, "c": 0.017}
    found = decide_by_holm(list(p_values), _decide_from(p_values))
    assert [each.verdict for each in found.values()] == ["equal", "equal", "undecided"]
    assert found["c"].alpha == pytest.approx(0.05 / 3)


def _answers(draw, skills, n, total=6000):
    """Adapters of one base along one order; the base is complete."""
    luck = draw.random(total)
    noise = {name: draw.random(total) < 0.03 for name in skills}
    right = {name: (luck < skill) ^ noise[name] for name, skill in skills.items()}
    order = QuestionOrder(tuple(map(str, range(total))), draw.integers(0, 4, total), None, 0)
    margins = np.abs(luck - 0.5)
    base = OrderedAnswers(luck < 0.5, margins)
    return order, {name: OrderedAnswers(each[:n], margins[:n]) for name, each in right.items()}, base


def test_the_best_wins_and_losers_name_who_beat_them():
    order, answers, base = _answers(np.random.default_rng(0), {"a": 0.5, "b": 0.6, "c": 0.53}, 3000)
    race = run_race(order, answers, base)
    assert race.best == "b" and race.left == ("b",) and set(race.lost_to) == {"a", "c"}
    assert race.lost_to["c"] == "b"
    early = run_race(
        order, {name: OrderedAnswers(a.right[:30], a.margin[:30]) for name, a in answers.items()}
    )
    assert early.best is None and early.left == ("a", "b", "c") and early.lost_to == {}


def test_equally_good_ones_end_within_the_margin_or_not_at_all():
    order, answers, base = _answers(np.random.default_rng(1), {"a": 0.5, "b": 0.5}, 5900)
    race = run_race(order, answers, base, margin=0.03)
    assert race.best in ("a", "b") and race.left == ("a", "b")
    assert run_race(order, answers, base).best is None
    assert run_race(order, {"a": answers["a"]}, base).best == "a"  # nobody to race against


def test_the_best_is_dropped_in_less_than_five_percent():
    dropped = wrong = 0
    for seed in range(40):
        draw = np.random.default_rng(100 + seed)
        order, answers, base = _answers(draw, {"a": 0.51, "b": 0.51, "c": 0.5, "d": 0.5}, 2000, 2001)
        means = {name: each.right.mean() for name, each in answers.items()}
        race = run_race(order, answers, base, margin=0.05)
        best = max(means, key=means.__getitem__)
        dropped += best in race.lost_to
        wrong += race.best is not None and means[best] - means[race.best] > 0.05
    assert dropped + wrong <= 5


def test_a_known_base_tells_two_adapters_apart_sooner():
    draw = np.random.default_rng(3)
    sooner = 0
    for _ in range(6):
        order, answers, base = _answers(draw, {"a": 0.5, "b": 0.53}, 6000)
        needed = []
        for known in (base, None):
            for n in range(200, 6000, 200):
                part = {name: OrderedAnswers(a.right[:n], a.margin[:n]) for name, a in answers.items()}
                if run_race(order, part, known).best:
                    break
            needed.append(n)
        sooner += needed[0] - needed[1]
    assert sooner < 0
