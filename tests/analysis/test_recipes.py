"""recipe: the crossed mixed model by hand, its coverage, and refusals."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_runs import loaded, predictions

from kmmlu_fast.analysis.recipes import estimate_crossed_effect, recipe_effect
from kmmlu_fast.core.errors import RunError


def test_two_seeds_by_hand() -> None:
    # 4 questions, 2 seeds; seeds' means 0.5 and 0; ms_seeds = 4 * (0.25^2 + 0.25^2) = 0.5
    changes = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, -1.0]])
    estimate, deviation = estimate_crossed_effect(changes, np.zeros(4, dtype=np.int64))
    rest = changes - changes.mean(axis=1, keepdims=True) - changes.mean(axis=0) + changes.mean()
    ms_rest = (rest**2).sum() / 3
    between = (0.5 - ms_rest) / 4
    assert estimate.value == pytest.approx(0.25) and deviation == pytest.approx(between**0.5)
    questions = changes.mean(axis=1).var(ddof=1) / 4
    assert estimate.error**2 == pytest.approx(questions + between / 2)


def test_the_interval_holds_seeds_and_questions() -> None:
    """Three seeds that differ by 2 points, 400 questions: a single adapter's interval would cover the
    recipe's effect far too rarely.
    """
    random, inside, naive = np.random.default_rng(0), 0, 0
    strata = np.arange(400) % 8
    for _ in range(400):
        shares = 0.05 + 0.02 * random.normal(size=3)
        changes = random.choice([-1.0, 0.0, 1.0], size=(400, 3), p=[0.08, 0.84, 0.08]) + (
            random.random((400, 3)) < shares
        )
        estimate, _ = estimate_crossed_effect(changes, strata)
        low, high = estimate.interval()
        inside += low <= 0.05 <= high
        half = 1.96 * changes.mean(axis=1).std(ddof=1) / 20
        naive += abs(changes.mean() - 0.05) <= half
    assert inside >= 0.93 * 400 > 0.88 * 400 > naive


def test_a_recipe_needs_two_seeds_over_the_same_questions() -> None:
    base = loaded("base", predictions(1))
    seeds = [loaded(f"s{i}", predictions(i, skill=1.4, bias=(0.1 * i, 0, 0, 0))) for i in range(3)]
    effect = recipe_effect("lora", base, seeds)
    assert (
        effect.runs == ("s0", "s1", "s2")
        and effect.effect == pytest.approx(np.mean(effect.effects))
        and effect.low < effect.effect < effect.high
    )
    with pytest.raises(RunError, match="at least 2 seeds"):
        recipe_effect("lora", base, seeds[:1])
    with pytest.raises(RunError, match="over other questions"):
        recipe_effect("lora", base, [seeds[0], loaded("short", seeds[1].frame.filter(pl.col("row") < 5))])


def test_seeds_that_vary_leave_no_more_degrees_of_freedom_than_seeds_less_one() -> None:
    random = np.random.default_rng(3)
    strata = np.arange(2_000) % 8
    changes = random.choice([-1.0, 0.0, 1.0], size=(2_000, 3), p=[0.2, 0.6, 0.2])
    varied = changes + np.array([0.01, 0.0, -0.01])  # less than the questions' own noise
    estimate, deviation = estimate_crossed_effect(varied, strata)
    assert deviation == 0.0 or estimate.df <= 2.0
    apart, deviation = estimate_crossed_effect(changes + np.array([0.04, 0.0, -0.04]), strata)
    assert deviation > 0.0 and apart.df <= 2.0


def test_a_recipe_is_equal_by_two_one_sided_tests() -> None:
    """Inside the margin by its 90 % interval, not by its 95 % one: both sides are tested at 5 %."""
    base = loaded("base", predictions(1))
    effect = recipe_effect("lora", base, [loaded(f"s{i}", predictions(1)) for i in range(3)])
    near = replace(effect, effect=0.0, low=-0.012, high=0.012, inner_low=-0.009, inner_high=0.009, p_value=1)
    assert near.outcome(0.01) == "equal" and near.outcome(0.008) == "undecided"
