"""How --minutes is kept, from measured seconds."""

from __future__ import annotations

import pytest

from kmmlu_fast.improvement.budget import (
    FEWEST_QUESTIONS,
    affordable_questions,
    affordable_recipes,
    most_checkpoints,
    trainings_of,
)


@pytest.mark.parametrize(
    ("rung", "rungs", "seeds", "trainings"),
    [(0, 2, 1, 1), (1, 2, 2, 3), (1, 3, 1, 1), (2, 3, 2, 4), (0, 1, 2, 2)],
)
def test_a_further_seed_trains_through_all_rungs(rung: int, rungs: int, seeds: int, trainings: int) -> None:
    assert trainings_of(rung, rungs, seeds) == trainings


@pytest.mark.parametrize(
    ("spent", "costs", "first_rung", "count"),
    [
        (180.0, [90.0] * 30, True, 18),  # half of an hour
        (1800.0, [240.0] * 30, False, 5),  # 85 % of it
        (1800.0, [30.0, 500.0, 700.0, 800.0], False, 3),  # the first is trained already
        (4000.0, [240.0] * 3, False, 1),
    ],
)
def test_recipes_that_fit(spent: float, costs: list[float], first_rung: bool, count: int) -> None:
    assert affordable_recipes(60, spent, costs, first_rung=first_rung) == count


def test_questions_that_fit() -> None:
    """Base and two adapters, and a base whose prompts are six questions long."""
    assert affordable_questions(60, 2700.0, 0.125, 3, 5) == 800
    assert affordable_questions(60, 2700.0, 0.125, 3, 0) == 2400
    assert affordable_questions(60, 5000.0, 0.125, 3, 5) == FEWEST_QUESTIONS


@pytest.mark.parametrize(
    ("recipes", "rungs", "keep", "seeds", "most"),
    [(12, 2, 0.5, 2, 24), (12, 2, 0.5, 5, 36), (7, 3, 1.0, 2, 21), (6, 1, 0.5, 3, 24)],
)
def test_checkpoints_on_the_disk(recipes: int, rungs: int, keep: float, seeds: int, most: int) -> None:
    """Two of each recipe that pauses; in the last rung the adapters of further seeds beside them."""
    assert most_checkpoints(recipes, rungs, keep, seeds) == most
