"""Which recipes go on to the next rung: those shown to be worse than another are dropped, then the better
part of the rest is kept.

In: each recipe's right answers to the same selection questions, and the rung. Out: a reason for each recipe
that is dropped. Pure, numpy only; an Optuna pruner around it. Knows nothing of training.

"Worse than another": a paired exact test (``analysis.exact_band``) whose error is shared by all other recipes
and all rungs, so the recipe that is truly best is dropped as worse in at most 5 % of all searches, however
many rungs there are. Dropping by rank has no such guarantee; it is what the time that it saves costs, and the
table names the two apart.
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
    kind: Literal["worse", "rank", "time"]
    reason: str


def shown_worse(answers: Answers, rung: int, tried: int) -> dict[str, str]:
    """The recipes that another one is shown to beat, and which. ``tried``: recipes of the whole search."""
    rates = {name: float(right.mean()) for name, right in answers.items()}
    order = sorted(rates, key=lambda name: -rates[name])
    worse: dict[str, str] = {}
    for place, name in enumerate(order):
        for better in order[:place]:
            gained = int((answers[better] & ~answers[name]).sum())
            lost = int((~answers[better] & answers[name]).sum())
            band = exact_change_band(gained, lost, len(answers[name]), rung + 1, among=max(tried - 1, 1))
            if band.low > 0:
                worse[name] = better
                break
    return worse


def choose_dropped(answers: Answers, rung: int, tried: int, keep: float) -> dict[str, Dropped]:
    """The recipes that do not go on after ``rung``. ``keep``: share of the recipes that goes on at most; 1
    drops only what is shown to be worse. At least one goes on.
    """
    worse = shown_worse(answers, rung, tried)
    dropped = {
        name: Dropped(rung, "worse", f"shown to be worse than {better} on the selection questions")
        for name, better in worse.items()
    }
    rates = {name: float(right.mean()) for name, right in answers.items()}
    left = sorted((name for name in answers if name not in worse), key=lambda name: -rates[name])
    most = max(1, math.ceil(len(answers) * keep))
    for place, name in enumerate(left[most:], most + 1):
        dropped[name] = Dropped(rung, "rank", f"place {place} of {len(answers)}; the best {most} went on")
    return dropped


def make_pruner(dropped: Mapping[str, Dropped]) -> Any:
    """An Optuna pruner that prunes the trials of the recipes in ``dropped``, which the search fills."""
    from optuna.pruners import BasePruner

    class PairedPruner(BasePruner):  # type: ignore[misc]
        """Prunes by the paired test over all recipes, not by a trial's own values."""

        def prune(self, study: Any, trial: Any) -> bool:
            return trial.params.get("recipe") in dropped

    return PairedPruner()
