"""How --minutes is kept: what a recipe costs in a rung, how many the time allows, what is left for test.

In: seconds measured so far. Out: counts. Pure; knows nothing of recipes.

A training of the first rung is the unit: one is measured before the second begins, and those of other recipes
are estimated from it by rows and epochs. A later rung continues by as much again; in the last one every
further seed trains from the beginning, through all rungs. Starting a process is part of the unit, so a longer
training is estimated a little too long, never too short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

_FIRST_RUNG_SHARE = 0.5  # of the time, for all that happens until the first rung is scored
_CONFIRMATION_SHARE = 0.15
FEWEST_QUESTIONS = 90  # that the winner is confirmed on, however little time is left


def trainings_of(rung: int, rungs: int, seeds: int) -> int:
    """Work of one recipe in a rung, in trainings of the first rung."""
    return 1 + (seeds - 1) * rungs if rung == rungs - 1 else 1


def most_checkpoints(recipes: int, rungs: int, keep: float, seeds: int) -> int:
    """How many checkpoints and adapters are on the disk at a time, at most: two of each paused training, and
    in the last rung each further seed's adapter.
    """
    going_on = max(1, math.ceil(recipes * keep)) if rungs > 1 else recipes
    return max(2 * recipes if rungs > 1 else 0, going_on * (1 + seeds))


def affordable_recipes(minutes: float, spent: float, costs: Sequence[float], *, first_rung: bool) -> int:
    """How many recipes the time allows in a rung, at least one. ``spent``: seconds so far; ``costs``: seconds
    of each recipe, training and scoring, in the order in which they are taken.
    """
    share = _FIRST_RUNG_SHARE if first_rung else 1 - _CONFIRMATION_SHARE
    left = share * 60 * minutes - spent
    return max(1, sum(total <= left for total in accumulate(costs)))


def affordable_questions(
    minutes: float, spent: float, question_sec: float, states: int, rival_examples: int
) -> int:
    """Test questions that the rest of the time allows, at least ``FEWEST_QUESTIONS``: base and adapters
    (``states``), and the base with examples, each of which makes its prompts longer by about a question.
    """
    each = question_sec * (states + (1 + rival_examples if rival_examples else 0))
    left = max(60 * minutes - spent, 0.0)
    return max(FEWEST_QUESTIONS, int(left / each)) if each > 0 else FEWEST_QUESTIONS
