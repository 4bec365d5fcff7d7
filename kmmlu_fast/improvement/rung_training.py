"""Trains the recipes of a rung: draws their rows, continues each training, records what is done.

In: recipes, seeds, a ``SearchState``, workers. Out: adapters by name, and which recipes failed. Knows
nothing of scores.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.contamination.check import find_table_overlap
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError, KmmluError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.data.dataset import load_frame
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import engine_settings
from kmmlu_fast.improvement.recipes import DRAWN, Recipe
from kmmlu_fast.improvement.rungs import name_recipe_state
from kmmlu_fast.improvement.search_state import SearchState
from kmmlu_fast.improvement.selection import SPLIT
from kmmlu_fast.improvement.workers import Workers
from kmmlu_fast.sampling.config import SampleConfig
from kmmlu_fast.sampling.job import draw_training_rows

_LEAST_DISK_BYTES = 256 * 2**20


class RungTrainer:
    """``weakness``: the run that shows weak subjects; ``asked``: questions that are never trained on."""

    def __init__(
        self,
        config: ImproveConfig,
        state: SearchState,
        workers: Workers,
        *,
        weakness: Path,
        asked: frozenset[str],
    ) -> None:
        self.config, self.state, self.workers = config, state, workers
        self._weakness, self._asked = weakness, asked
        self._checked: set[Path] = set()

    def draw_all_rows(self, recipes: Sequence[Recipe]) -> None:
        """Before anything is trained, so that a recipe that cannot have its rows ends the search early;
        written reasoning takes long, and is drawn when its recipe is trained.
        """
        for recipe in recipes:
            if recipe.settings.get("rationale") != "self":
                self._draw_rows(recipe)
        self.state.note_time()

    def train_rung(
        self, alive: Sequence[Recipe], rung: int, seeds: Sequence[int]
    ) -> tuple[dict[str, Path], dict[str, str]]:
        """Adapters by name, and recipes that failed, with why. Nothing is trained twice."""
        wanted = {name_recipe_state(recipe, seed): (recipe, seed) for recipe in alive for seed in seeds}
        done = {name: self.state.trained_path(f"{name}-r{rung}") for name in wanted}
        errors = self.train_states({name: wanted[name] for name, path in done.items() if path is None}, rung)
        failed = {wanted[name][0].name: one_line(str(error), 160) for name, error in errors.items()}
        if len(failed) == len(alive):
            raise next(iter(errors.values()))
        paths = {name: self.state.trained_path(f"{name}-r{rung}") for name in wanted}
        return {name: path for name, path in paths.items() if path is not None}, failed

    def train_states(self, wanted: Mapping[str, tuple[Recipe, int]], rung: int) -> dict[str, KmmluError]:
        """Train up to the rung; each is recorded as it is done. Returns what failed, by name."""
        errors: dict[str, KmmluError] = {}
        if not wanted:
            return errors
        names = list(wanted)
        log_note(f"rung {rung + 1} of {self.config.rungs}: training {', '.join(names)}")
        pieces = [self._train_settings(*wanted[name], rung) for name in names]
        for done in self.workers.train(pieces):
            name = names[done.piece]
            if done.path is None:
                assert done.error is not None
                log_note(f"training {name} failed: {one_line(str(done.error), 300)}")
                if shutil.disk_usage(self.state.folder).free < _LEAST_DISK_BYTES:
                    raise done.error  # no recipe's fault
                errors[name] = done.error
                self.state.note_time()
                continue
            self.state.add_trained(f"{name}-r{rung}", done.path, done.seconds)
            log_note(f"trained {name} in {done.seconds:.0f} s")
        return errors

    def _train_settings(self, recipe: Recipe, seed: int, rung: int) -> dict[str, Any]:
        last = rung == self.config.rungs - 1
        return {
            "data": [str(self._draw_rows(recipe))],
            "output_dir": self.state.folder / "adapters" / name_recipe_state(recipe, seed),
            "model": self.config.model,
            "revision": self.config.revision,
            "trust_remote_code": self.config.trust_remote_code,
            "dataset": self.config.dataset,
            "dataset_revision": self.config.dataset_revision,
            "held_out": 0,
            "keep": "last",
            "seed": self.config.seed + seed,
            **({} if last else {"stop_after": (rung + 1) / self.config.rungs}),
            **recipe.train_settings,
        }

    def rows_path(self, recipe: Recipe) -> Path:
        """Where they are: the user's own file, or what was drawn."""
        return recipe.given_rows or self.state.folder / "rows" / f"{recipe.rows_digest}.jsonl"

    def _draw_rows(self, recipe: Recipe) -> Path:
        """The recipe's training rows; recipes with the same settings share them."""
        path = self.rows_path(recipe)
        if recipe.given_rows is not None:
            self._refuse_selection_rows(recipe, path)
        if path.exists():
            return path
        config = build_config(
            SampleConfig,
            **{
                **engine_settings(self.config),
                "from": [str(self._weakness)],
                "out": path,
                "overwrite": True,  # what a kill left
                **recipe.part(DRAWN),
            },
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_training_rows(config, self._asked)
        return path

    def _refuse_selection_rows(self, recipe: Recipe, path: Path) -> None:
        """ConfigError if a user's rows hold questions that recipes are chosen on: they would win by them.
        Test is guarded by ``train``.
        """
        if path in self._checked:
            return
        train = load_frame(self.config.dataset, SPLIT, revision=self.config.dataset_revision)
        pairs, count = find_table_overlap(str(path), train.filter(pl.col("question_id").is_in(self._asked)))
        if len(pairs):
            rows = pairs["train_id"].unique(maintain_order=True).to_list()
            raise ConfigError(
                f"recipe {recipe.name}: data {path}: {len(rows)} of its {count} rows overlap the train"
                f" questions that recipes are chosen on, the first being {rows[0]}; remove them, or give"
                " another --seed"
            )
        self._checked.add(path)
