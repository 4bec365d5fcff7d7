"""How --minutes is kept, from measured seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmmlu_fast.improvement.budget import (
    FEWEST_QUESTIONS,
    Measured,
    affordable_questions,
    affordable_recipes,
    recipe_seconds,
    trainings_of,
)

MEASURED = Measured(training=60.0, scoring=30.0, spent=0.0)


@pytest.mark.parametrize(
    ("rung", "rungs", "seeds", "trainings"),
    [(0, 2, 1, 1), (1, 2, 2, 3), (1, 3, 1, 1), (2, 3, 2, 4), (0, 1, 2, 2)],
)
def test_a_further_seed_trains_through_all_rungs(rung: int, rungs: int, seeds: int, trainings: int) -> None:
    assert trainings_of(rung, rungs, seeds) == trainings


def test_scoring_is_paid_for_every_adapter_and_trainings_side_by_side_share() -> None:
    assert recipe_seconds(MEASURED, 0, 2, 1) == 90.0
    assert recipe_seconds(MEASURED, 1, 2, 2) == 240.0
    assert recipe_seconds(replace(MEASURED, slots=3), 1, 2, 2) == 120.0


def test_recipes_that_fit() -> None:
    """Half of an hour for the first rung, 85 % of it for both."""
    assert affordable_recipes(60, replace(MEASURED, spent=180.0), 1, 0, 2, 1) == 1 + 18
    assert affordable_recipes(60, replace(MEASURED, spent=1800.0), 0, 1, 2, 2) == 5
    assert affordable_recipes(60, replace(MEASURED, spent=4000.0), 0, 1, 2, 2) == 1
    assert affordable_recipes(60, replace(MEASURED, spent=4000.0), 4, 1, 2, 2) == 4  # trained already


def test_questions_that_fit() -> None:
    """Base and two adapters, and a base whose prompts are six questions long."""
    assert affordable_questions(60, 2700.0, 0.125, 3, 5) == 800
    assert affordable_questions(60, 2700.0, 0.125, 3, 0) == 2400
    assert affordable_questions(60, 5000.0, 0.1, 3, 5) == FEWEST_QUESTIONS
