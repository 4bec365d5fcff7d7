"""Scores the adapters of a rung together, on the selection questions.

In: recipes, their adapters, the base's runs. Out: right answers by column, stored with the recipes that
failed or collapsed. Knows nothing of training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.improvement.collapse import describe_collapse
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.rungs import (
    Right,
    base_column,
    name_recipe_state,
    protocol_settings,
    right_answers,
)
from kmmlu_fast.improvement.search_state import SearchState
from kmmlu_fast.improvement.workers import LostWorkError, Workers
from kmmlu_fast.runs.run import Run


class RungScorer:
    """``settings``: of ``eval``, but for the protocol and the adapters; ``selection``: the questions' ids."""

    def __init__(
        self, settings: dict[str, Any], state: SearchState, workers: Workers, selection: frozenset[str]
    ) -> None:
        self.settings, self.state, self.workers = settings, state, workers
        self.ids = sorted(selection)

    def score_rung(
        self,
        sound: Sequence[Recipe],
        rung: int,
        seeds: Sequence[int],
        base: Mapping[tuple[str, int], Run],
        paths: Mapping[str, Path],
        failed: dict[str, str],
    ) -> dict[str, Right]:
        """Right answers by column, written with what ``failed`` and collapsed."""
        scores: dict[str, Right] = {}
        collapsed: dict[str, str] = {}
        for protocol, run in base.items():
            scores[base_column(protocol)] = right_answers(run, self.ids)
        for protocol, before in base.items():
            together = [recipe for recipe in sound if recipe.protocol == protocol]
            names = [name_recipe_state(recipe, seed) for recipe in together for seed in seeds]
            if not names:
                continue
            log_note(f"rung {rung + 1}: scoring {len(names)} adapters together")
            began = time.monotonic()
            runs, errors = self._evaluate_adapters(together[0], {name: paths[name] for name in names})
            seconds = max(time.monotonic() - began, answering_seconds(list(runs.values())))
            self.state.add_pace("adapter", len(names), seconds)
            for recipe in together:
                states = [name_recipe_state(recipe, seed) for seed in seeds]
                if broken := next((name for name in states if name in errors), None):
                    failed[recipe.name] = one_line(str(errors[broken]), 160)
                    continue
                scores |= {name: right_answers(runs[name], self.ids) for name in states}
                said = [describe_collapse(before.frame, runs[name].frame, rung + 1) for name in states]
                if all(said):
                    collapsed[recipe.name] = str(said[0])
            if errors and all(recipe.name in failed for recipe in sound):
                raise next(iter(errors.values()))
        self.state.write_reasons("failed", rung, failed)
        self.state.write_reasons("collapsed", rung, collapsed)
        self.state.write_scores(rung, self.ids, scores)
        self.state.note_time()
        return scores

    def _evaluate_adapters(
        self, recipe: Recipe, paths: Mapping[str, Path]
    ) -> tuple[dict[str, Run], dict[str, KmmluError]]:
        """Runs by name. If the engine refuses one of the adapters, each is asked alone, to know which."""
        settings = {**self.settings, **protocol_settings(recipe), "no_base": True}
        try:
            runs = self.workers.evaluate(
                {**settings, "adapter": [f"{name}={path}" for name, path in paths.items()]}
            )
            return dict(zip(paths, runs, strict=True)), {}
        except LostWorkError:
            raise
        except KmmluError as error:
            if len(paths) == 1:
                return {}, dict.fromkeys(paths, error)
            log_note(f"scoring together failed ({one_line(str(error), 200)}); each is asked alone")
        found: dict[str, Run] = {}
        errors: dict[str, KmmluError] = {}
        for name, path in paths.items():
            some, wrong = self._evaluate_adapters(recipe, {name: path})
            found |= some
            errors |= wrong
        return found, errors


def answering_seconds(runs: Sequence[Run]) -> float:
    """How long the runs take at the rate of their last passes: what a pass takes is more, unless a killed
    command, or another search, has done some of it.
    """
    speeds = [(len(run.frame), run.pass_metrics.speed) for run in runs]
    return sum(
        count * speed.seconds / speed.questions for count, speed in speeds if speed and speed.questions
    )
