"""The answers of a rung: what recipes are compared by, and how their states are called.

In: right or wrong by question. Out: gains. Pure. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.runs.run import Run

Right = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RungScores:
    """Right answers of base and recipes to the selection questions, at one rung."""

    rung: int
    base: Mapping[tuple[str, int], Right]  # by protocol
    recipes: Mapping[str, Sequence[Right]]  # by recipe, one array per seed
    collapsed: Mapping[str, str] = field(
        default_factory=dict
    )  # recipes that answer with one letter: what is said

    @property
    def yardstick(self) -> tuple[str, int]:
        """The protocol of the base that all recipes are measured against, also those that are asked with
        examples: the one with the fewest examples.
        """
        return min(self.base, key=lambda protocol: protocol[1])

    def gain(self, recipe: Recipe) -> float:
        """Mean over seeds, against the yardstick."""
        return mean_right(self.recipes[recipe.name]) - float(self.base[self.yardstick].mean())


def name_recipe_state(recipe: Recipe, seed: int) -> str:
    return f"{recipe.name}-s{seed}"


def seeds_in_rung(rung: int, rungs: int, seeds: int) -> list[int]:
    """The training seeds of a rung: all of them in the last one."""
    return list(range(seeds if rung == rungs - 1 else 1))


def base_column(protocol: tuple[str, int]) -> str:
    return f"base/{protocol[0]}/{protocol[1]}"


def protocol_settings(recipe: Recipe) -> dict[str, Any]:
    style, fewshot = recipe.protocol
    return {"prompt_style": style, "num_fewshot": fewshot}


def mean_right(by_seed: Sequence[Right]) -> float:
    """Share of right answers, the mean over seeds."""
    return float(np.mean([right.mean() for right in by_seed]))


def right_answers(run: Run, ids: Sequence[str]) -> Right:
    """Right or wrong on ``ids``, in their order. ConfigError if the run lacks one."""
    right = dict(run.frame.select("question_id", "correct").iter_rows())
    missing = [name for name in ids if name not in right]
    if missing:
        raise ConfigError(f"{run.name}: did not answer {missing[0]}; search in a new directory")
    return np.array([right[name] for name in ids], dtype=bool)
