"""Which recipes go on to the next rung: those shown to be worse than another are dropped, then the better
part of the rest is kept.

In: each recipe's right answers to the same selection questions, and the rung. Out: a reason for each recipe
that is dropped. Pure, numpy only; an Optuna pruner around it. Knows nothing of training.

"Worse than another": a paired exact test (``analysis.exact_band``) whose error is shared by all pairs of
recipes and all rungs, so in at most 5 % of all searches any recipe is falsely called worse, however many
rungs there are. It is about the adapters as they are at that rung: one that learns slowly may really be
behind then. Dropping by rank has no such guarantee; it is what the time that it saves costs. An adapter that
answers (nearly) everything with one letter is dropped for that: what it gains is letter habit. The table
names the reasons apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.analysis.exact_band import exact_change_band

Answers = Mapping[str, NDArray[np.bool_]]  # right or wrong by recipe, on the same questions


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a recipe did not go on after rung ``rung`` (0, 1, ...)."""

    rung: int
    kind: Literal["worse", "rank", "time", "collapsed", "failed"]
    reason: str


def shown_worse(answers: Answers, rung: int, tried: int) -> dict[str, str]:
    """The recipes that another one is shown to beat, and which. ``tried``: recipes of the whole search."""
    rates = {name: float(right.mean()) for name, right in answers.items()}
    order = sorted(rates, key=lambda name: -rates[name])
    worse: dict[str, str] = {}
    pairs = max(tried * (tried - 1) // 2, 1)
    for place, name in enumerate(order):
        for better in order[:place]:
            gained = int((answers[better] & ~answers[name]).sum())
            lost = int((~answers[better] & answers[name]).sum())
            band = exact_change_band(gained, lost, len(answers[name]), rung + 1, among=pairs)
            if band.low > 0:
                worse[name] = better
                break
    return worse


def choose_dropped(
    answers: Answers, rung: int, tried: int, keep: float, collapsed: Mapping[str, str] | None = None
) -> dict[str, Dropped]:
    """The recipes that do not go on after ``rung``, in the order of ``answers``. ``keep``: share of the
    recipes that goes on at most; 1 drops only what is shown to be worse. ``collapsed``: what is said of those
    that answer with one letter. At least one goes on, a collapsed one only if all are.
    """
    fallen = collapsed or {}
    if all(name in fallen for name in answers):
        fallen = {}
    dropped = {
        name: Dropped(rung, "collapsed", f"collapsed: {reason}")
        for name, reason in fallen.items()
        if name in answers
    }
    reading = {name: right for name, right in answers.items() if name not in dropped}
    for name, better in shown_worse(reading, rung, tried).items():
        dropped[name] = Dropped(rung, "worse", f"shown to be worse than {better} on the selection questions")
    rates = {name: float(right.mean()) for name, right in answers.items()}
    left = sorted((name for name in answers if name not in dropped), key=lambda name: -rates[name])
    most = max(1, math.ceil(len(answers) * keep))
    for place, name in enumerate(left[most:], most + 1):
        last = left[most - 1]
        tied = f", tied with {last}, which stands before it" if rates[name] == rates[last] else ""
        reason = f"place {place} of {len(left)}{tied}; the best {most} went on"
        dropped[name] = Dropped(rung, "rank", reason)
    return {name: dropped[name] for name in answers if name in dropped}


def make_pruner(dropped: Mapping[str, Dropped]) -> Any:
    """An Optuna pruner that prunes the trials of the recipes in ``dropped``, which the search fills."""
    from optuna.pruners import BasePruner

    class PairedPruner(BasePruner):  # type: ignore[misc]
        """Prunes by the paired test over all recipes, not by a trial's own values."""

        def prune(self, study: Any, trial: Any) -> bool:
            return trial.params.get("recipe") in dropped

    return PairedPruner()
