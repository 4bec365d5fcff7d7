"""Trains the recipes of a rung: draws their rows, continues each training, records what is done.

In: recipes, seeds, a ``SearchState``, workers. Out: adapters by name, and which recipes failed. Knows
nothing of scores.
"""

from __future__ import annotations

import shutil
import time
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
from kmmlu_fast.improvement.workers import LostWorkError, Workers, newest_step
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
        self._errors: dict[tuple[str, int], KmmluError] = {}  # of this command, by recipe and rung
        self._unwritten: dict[Path, KmmluError] = {}

    def draw_all_rows(self, recipes: Sequence[Recipe]) -> None:
        """Before anything is trained, so that a recipe that cannot have its rows ends the search early;
        written reasoning takes long, and is drawn when its recipe is trained.
        """
        for recipe in recipes:
            if not _has_written_rows(recipe):
                self._draw_rows(recipe)
        self.state.note_time()

    def train_rung(
        self, alive: Sequence[Recipe], rung: int, seeds: Sequence[int]
    ) -> tuple[dict[str, Path], dict[str, str]]:
        """Adapters by name, and recipes that failed, with why. Nothing is trained twice."""
        wanted = {name_recipe_state(recipe, seed): (recipe, seed) for recipe in alive for seed in seeds}
        self.train_states(wanted, rung)
        errors = self.find_failures(alive, rung)
        if len(errors) == len(alive):
            raise next(iter(errors.values()))
        paths = {name: self.state.trained_path(f"{name}-r{rung}") for name in wanted}
        failed = {name: one_line(str(error), 160) for name, error in errors.items()}
        return {name: path for name, path in paths.items() if path is not None}, failed

    def find_failures(self, recipes: Sequence[Recipe], rung: int) -> dict[str, KmmluError]:
        """What failed of a rung in this command, by recipe."""
        return {recipe.name: error for recipe in recipes if (error := self._errors.get((recipe.name, rung)))}

    def train_states(self, wanted: Mapping[str, tuple[Recipe, int]], rung: int) -> None:
        """Train what is not trained up to the rung, and did not fail there in this command; each is recorded
        as it is done. Recipes whose reasoning must first be written come after the others.
        """
        left = {
            name: (recipe, seed)
            for name, (recipe, seed) in wanted.items()
            if self.state.trained_path(f"{name}-r{rung}") is None and (recipe.name, rung) not in self._errors
        }
        later = {name: pair for name, pair in left.items() if self.lacks_rows(pair[0])}
        self._train_together({name: pair for name, pair in left.items() if name not in later}, rung)
        for name, (recipe, _) in later.items():
            self.write_rows(recipe, rung, name)
        self._train_together(
            {name: pair for name, pair in later.items() if not self.lacks_rows(pair[0])}, rung
        )

    def lacks_rows(self, recipe: Recipe) -> bool:
        """Whether an engine must write the recipe's reasoning before it can be trained."""
        return _has_written_rows(recipe) and not self.rows_path(recipe).exists()

    def write_rows(self, recipe: Recipe, rung: int, name: str) -> None:
        """Have the recipe's reasoning written, or record why it failed."""
        path = self.rows_path(recipe)
        if path.exists() or (recipe.name, rung) in self._errors:
            return
        if path in self._unwritten:  # another recipe's, which failed
            self._errors[recipe.name, rung] = self._unwritten[path]
            return
        log_note(f"rows of {recipe.name}: the model writes their reasoning")
        began = time.monotonic()
        try:
            self.workers.draw_rows(self._draw_settings(recipe), self._asked)
        except LostWorkError:
            raise
        except KmmluError as error:
            self._unwritten[path] = error
            self._record_failure(name, recipe, rung, error)
            return
        self.state.add_pace("drawing", recipe.drawn_rows, time.monotonic() - began)
        self.state.note_time()

    def _train_together(self, wanted: Mapping[str, tuple[Recipe, int]], rung: int) -> None:
        names = list(wanted)
        if not names:
            return
        log_note(f"rung {rung + 1} of {self.config.rungs}: training {', '.join(names)}")
        begun = {name for name in names if self._is_begun(name, rung)}
        pieces = [self._train_settings(*wanted[name], rung) for name in names]
        for done in self.workers.train(pieces):
            name = names[done.piece]
            if done.path is None:
                assert done.error is not None
                self._record_failure(name, wanted[name][0], rung, done.error)
                continue
            self.state.add_trained(f"{name}-r{rung}", done.path, None if name in begun else done.seconds)
            log_note(f"trained {name} in {done.seconds:.0f} s")

    def _record_failure(self, name: str, recipe: Recipe, rung: int, error: KmmluError) -> None:
        log_note(f"training {name} failed: {one_line(str(error), 300)}")
        if shutil.disk_usage(self.state.folder).free < _LEAST_DISK_BYTES:
            raise error  # no recipe's fault
        self._errors.setdefault((recipe.name, rung), error)
        self.state.note_time()

    def _is_begun(self, name: str, rung: int) -> bool:
        """Whether a killed command got further with a training than is recorded."""
        newest = newest_step(self._adapter_folder(name))
        before = self.state.trained_path(f"{name}-r{rung - 1}") if rung else None
        return newest is not None and newest != before

    def _adapter_folder(self, name: str) -> Path:
        return self.state.folder / "adapters" / name

    def _train_settings(self, recipe: Recipe, seed: int, rung: int) -> dict[str, Any]:
        last = rung == self.config.rungs - 1
        return {
            "data": [str(self._draw_rows(recipe))],
            "output_dir": self._adapter_folder(name_recipe_state(recipe, seed)),
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
        draw_training_rows(build_config(SampleConfig, **self._draw_settings(recipe)), self._asked)
        return path

    def _draw_settings(self, recipe: Recipe) -> dict[str, Any]:
        path = self.rows_path(recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        return {
            **engine_settings(self.config),
            "from": [str(self._weakness)],
            "out": path,
            "overwrite": True,  # what a kill left
            **recipe.part(DRAWN),
        }

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


def _has_written_rows(recipe: Recipe) -> bool:
    """Whether the model itself writes the reasoning in the recipe's rows."""
    return recipe.given_rows is None and recipe.settings.get("rationale", "none") != "none"
