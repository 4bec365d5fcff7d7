"""The directory of a search: whose it is, what is trained and scored already, how long it took.

In: an ``ImproveConfig``, recipes, results of pieces of work. Out: JSON and parquet files, each written whole
when its piece is done: after a kill, the same command goes on behind the last of them. Knows nothing of what
the pieces are.

    search.json      settings and recipes: once something is trained, another search is refused
    state.json       trained adapters, recipes that were left out, failed or collapsed, seconds spent
    rung-N.parquet   right answers by question, one column per recipe and seed
    journal.log      the same for optuna-dashboard
    rows/ adapters/ runs/ weakness/
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import describe_differences
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.files import read_json, remove_tree, write_json_atomically, write_parquet_atomically
from kmmlu_fast.core.locks import Lock, acquire_lock
from kmmlu_fast.core.table_files import read_parquet
from kmmlu_fast.improvement.config import ImproveConfig, compared_settings
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.workers import newest_step

IDENTITY, STATE = "search.json", "state.json"
_WORK = ("adapters", "rows", "runs")  # where work in progress leaves signs of life


def _identify_recipe(recipe: Recipe) -> dict[str, Any]:
    """Its settings, and what a file of rows that it names holds."""
    given = {"data_sha256": recipe.rows_digest} if recipe.given_rows is not None else {}
    return {**recipe.settings, **given}


class SearchState:
    """The files of one search. Open it once; the caller holds ``lock``."""

    def __init__(self, config: ImproveConfig, recipes: list[Recipe]) -> None:
        """Claim the directory. ConfigError if it holds another search, or something else."""
        self.folder = config.output_dir.absolute()  # workers elsewhere may stand in another directory
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock: Lock = acquire_lock(
            self.folder / ".lock",
            ConfigError(f"--output-dir {self.folder}: another process searches there; wait for it"),
        )
        identity = {
            "settings": config.identity(),
            "recipes": {recipe.name: _identify_recipe(recipe) for recipe in recipes},
        }
        path = self.folder / STATE
        try:
            self._values: dict[str, Any] = read_json(path) if path.exists() else {}
            stored = self._claim(identity)
        except BaseException:
            self.lock.close()
            raise
        # a file in another order is the same search: of equals, the first in the stored order goes on
        self._order = {name: place for place, name in enumerate(stored.get("recipes", {}))}
        self._count_killed_time()
        self._since = time.monotonic()
        self.note_time()

    def in_stored_order(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """``recipes`` in the order in which the search began."""
        return sorted(recipes, key=lambda recipe: self._order[recipe.name])

    def _claim(self, identity: dict[str, Any]) -> dict[str, Any]:
        path = self.folder / IDENTITY
        if path.exists():
            stored = read_json(path)
            there = {part: stored[part] if isinstance(stored.get(part), dict) else {} for part in identity}
            there["settings"] = compared_settings(there["settings"])
            found = [describe_differences(there[part], here) for part, here in identity.items()]
            differences = ", ".join(text for part in found for text in part)
            if not differences:
                return stored
            if self._has_work():
                raise ConfigError(
                    f"--output-dir {self.folder}: holds another search, differing in {differences}; give the"
                    " same settings, or another directory"
                )
            log_note(
                f"note: {self.folder}: nothing is trained yet of the search that began there, differing in"
                f" {differences}; it begins anew"
            )
            self._begin_anew()
        elif any(not item.name.startswith(".lock") for item in self.folder.iterdir()):
            raise ConfigError(
                f"--output-dir {self.folder}: is not empty and holds no search; give a new directory"
            )
        write_json_atomically(path, identity)
        return identity

    def _has_work(self) -> bool:
        """Whether something is here that took long: an adapter, a checkpoint, reasoning that was written."""
        folders = (self.folder / "adapters").glob("*")
        return bool(
            self._values.get("trained")
            or self.read_pace("drawing")
            or any(newest_step(folder) is not None for folder in folders)
        )

    def _begin_anew(self) -> None:
        """Forget a search without adapters. Runs stay: they are reused only where they fit."""
        self._values = {}
        self._write()
        for name in ("adapters", "rows", "weakness"):
            remove_tree(self.folder / name)
        for path in self.folder.glob("journal.log*"):
            path.unlink(missing_ok=True)

    def _count_killed_time(self) -> None:
        """Count the time of an earlier command between its last note and its last sign of life. Nothing in a
        copied directory, where all files are young.
        """
        noted = self._values.get("noted")
        if noted is None or (self.folder / IDENTITY).stat().st_mtime > noted:
            return
        last = noted
        for path in (path for name in _WORK for path in (self.folder / name).rglob("*")):
            with contextlib.suppress(OSError):
                last = max(last, path.lstat().st_mtime)
        self._values["spent_sec"] = round(self.spent_sec + max(min(last, time.time()) - noted, 0.0), 3)

    def trained_path(self, key: str) -> Path | None:
        """Where the adapter of a finished training is (``key``: recipe, seed and rung); None if not done."""
        stored = self._values.get("trained", {}).get(key)
        return None if stored is None else self.folder / stored

    def add_trained(self, key: str, path: Path, seconds: float | None) -> None:
        """``seconds``: None for what a killed command had begun: its rest says nothing of the others."""
        self._values.setdefault("trained", {})[key] = path.relative_to(self.folder).as_posix()
        if seconds is not None:
            self._values.setdefault("seconds", {})[key] = round(seconds, 1)
        self.note_time()

    @property
    def training_seconds(self) -> dict[str, float]:
        """Seconds that each training took, by its key; those that a killed command had begun are left out."""
        return dict(self._values.get("seconds", {}))

    @property
    def spent_sec(self) -> float:
        """Seconds that the search took, over all commands, up to the last piece of work that was recorded."""
        return float(self._values.get("spent_sec", 0.0))

    def note_time(self) -> None:
        """Count the time since the last note."""
        now = time.monotonic()
        self._values["spent_sec"] = round(self.spent_sec + now - self._since, 3)
        self._values["noted"] = time.time()
        self._since = now
        self._write()

    def add_pace(self, name: str, count: int, seconds: float) -> None:
        """``count`` of ``name`` (questions, adapters) were done in ``seconds``. The first measurement counts:
        a later one may have found some of it done.
        """
        self._values.setdefault("pace", {}).setdefault(name, seconds / max(count, 1))
        self._write()

    def read_pace(self, name: str) -> float:
        """Seconds for one; 0 if it was not measured."""
        return float(self._values.get("pace", {}).get(name, 0.0))

    def read_limit(self) -> tuple[float | None, int | None] | None:
        """--minutes and the number of test questions with which the confirmation began; None before that."""
        stored = self._values.get("confirmation")
        return None if stored is None else (stored["minutes"], stored["questions"])

    def write_limit(self, minutes: float | None, questions: int | None) -> None:
        self._values["confirmation"] = {"minutes": minutes, "questions": questions}
        self._write()

    @property
    def left_out(self) -> dict[str, int]:
        """Recipes that were left out for time, and before which rung."""
        return dict(self._values.get("left_out", {}))

    def leave_out(self, names: Sequence[str], rung: int) -> None:
        """These, and no others, before ``rung``."""
        others = {name: place for name, place in self.left_out.items() if place != rung}
        self._values["left_out"] = {**others, **dict.fromkeys(names, rung)}
        self._write()

    def read_reasons(self, kind: str, rung: int) -> dict[str, str]:
        """Recipes that "failed" or "collapsed" at a rung, and what is said of it."""
        found: dict[str, str] = self._values.get(kind, {}).get(str(rung), {})
        return dict(found)

    def write_reasons(self, kind: str, rung: int, reasons: Mapping[str, str]) -> None:
        self._values.setdefault(kind, {})[str(rung)] = dict(reasons)
        self._write()

    def read_scores(self, rung: int) -> dict[str, NDArray[np.bool_]] | None:
        """Right answers by "recipe-sSEED" and for "base", of a rung that is scored; None if it is not."""
        path = self.folder / f"rung-{rung}.parquet"
        if not path.exists():
            return None
        frame = read_parquet(path, RunError)
        return {name: frame[name].to_numpy() for name in frame.columns if name != "question_id"}

    def write_scores(
        self, rung: int, question_ids: list[str], scores: Mapping[str, NDArray[np.bool_]]
    ) -> None:
        frame = pl.DataFrame({"question_id": question_ids, **scores})
        write_parquet_atomically(self.folder / f"rung-{rung}.parquet", frame)

    def _write(self) -> None:
        write_json_atomically(self.folder / STATE, self._values)
