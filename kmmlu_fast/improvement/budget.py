"""How --minutes is kept: what a recipe costs in a rung, how many the time allows, what is left for test.

In: seconds measured so far. Out: counts. Pure; knows nothing of recipes.

A training of the first rung is the unit: it is measured before the second one begins. A later rung continues
by as much again; in the last one every further seed trains from the beginning, through all rungs. Starting a
process is part of the unit, so a continued training is estimated a little too long, never too short.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_RUNG_SHARE = 0.5  # of the time, for all that happens until the first rung is scored
_CONFIRMATION_SHARE = 0.15
FEWEST_QUESTIONS = 90  # that the winner is confirmed on, however little time is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a search's work took so far, seconds."""

    training: float  # one training of the first rung
    scoring: float  # one adapter over the selection questions
    spent: float  # by the whole search
    slots: int = 1  # trainings side by side


def trainings_of(rung: int, rungs: int, seeds: int) -> int:
    """Work of one recipe in a rung, in trainings of the first rung."""
    return 1 + (seeds - 1) * rungs if rung == rungs - 1 else 1


def recipe_seconds(measured: Measured, rung: int, rungs: int, seeds: int) -> float:
    """Seconds that a recipe takes in a rung, training and scoring."""
    trained = measured.training * trainings_of(rung, rungs, seeds) / max(measured.slots, 1)
    return max(trained + measured.scoring * (seeds if rung == rungs - 1 else 1), 0.1)


def affordable_recipes(
    minutes: float, measured: Measured, done: int, rung: int, rungs: int, seeds: int
) -> int:
    """How many recipes the time allows in a rung, at least one. ``done``: trained in this rung before."""
    last = rung == rungs - 1
    share = 1 - _CONFIRMATION_SHARE if last or rung else _FIRST_RUNG_SHARE
    left = share * 60 * minutes - measured.spent
    return max(1, done + int(max(left, 0.0) / recipe_seconds(measured, rung, rungs, seeds)))


def affordable_questions(
    minutes: float, spent: float, question_sec: float, states: int, rival_examples: int
) -> int:
    """Test questions that the rest of the time allows, at least ``FEWEST_QUESTIONS``: base and adapters
    (``states``), and the base with examples, each of which makes its prompts longer by about a question.
    """
    each = question_sec * (states + (1 + rival_examples if rival_examples else 0))
    left = max(60 * minutes - spent, 0.0)
    return max(FEWEST_QUESTIONS, int(left / each)) if each > 0 else FEWEST_QUESTIONS
