"""The directory of a search: whose it is, what is trained and scored already, how long it took.

In: an ``ImproveConfig``, recipes, results of pieces of work. Out: JSON and parquet files, each written whole
when its piece is done: after a kill, the same command goes on behind the last of them. Knows nothing of what
the pieces are.

    search.json      settings and recipes: another search is refused
    state.json       trained adapters, recipes left out for time, seconds spent
    rung-N.parquet   right answers by question, one column per recipe and seed
    journal.log      the same for optuna-dashboard
    rows/ adapters/ runs/ weakness/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.core.digests import describe_differences
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.files import read_json, write_json_atomically, write_parquet_atomically
from kmmlu_fast.core.locks import Lock, acquire_lock
from kmmlu_fast.core.table_files import read_parquet
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.recipes import Recipe

IDENTITY, STATE = "search.json", "state.json"


class SearchState:
    """The files of one search. Open it once; the caller holds ``lock``."""

    def __init__(self, config: ImproveConfig, recipes: list[Recipe]) -> None:
        """Claim the directory. ConfigError if it holds another search, or something else."""
        self.folder = config.output_dir
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock: Lock = acquire_lock(
            self.folder / ".lock",
            ConfigError(f"--output-dir {self.folder}: another process searches there; wait for it"),
        )
        identity = {
            "settings": config.identity(),
            "recipes": {recipe.name: dict(recipe.settings) for recipe in recipes},
        }
        self._claim(identity)
        path = self.folder / STATE
        self._values: dict[str, Any] = read_json(path) if path.exists() else {}

    def _claim(self, identity: dict[str, Any]) -> None:
        path = self.folder / IDENTITY
        if path.exists():
            stored = read_json(path)
            differences: list[str] = []
            for part, here in identity.items():
                there = stored.get(part)
                differences += describe_differences(there if isinstance(there, dict) else {}, here)
            if differences:
                raise ConfigError(
                    f"--output-dir {self.folder}: holds another search, differing in"
                    f" {', '.join(differences)}; give the same settings, or another directory"
                )
            return
        if any(not item.name.startswith(".lock") for item in self.folder.iterdir()):
            raise ConfigError(
                f"--output-dir {self.folder}: is not empty and holds no search; give a new directory"
            )
        write_json_atomically(path, identity)

    def trained_path(self, key: str) -> Path | None:
        """Where the adapter of a finished training is (``key``: recipe, seed and rung); None if not done."""
        stored = self._values.get("trained", {}).get(key)
        return None if stored is None else self.folder / stored

    def add_trained(self, key: str, path: Path, seconds: float) -> None:
        self._values.setdefault("trained", {})[key] = path.relative_to(self.folder).as_posix()
        self._values.setdefault("seconds", {})[key] = round(seconds, 1)
        self.add_seconds(seconds)

    def training_seconds(self, rung: int) -> list[float]:
        """Seconds that each training took in a rung."""
        seconds: dict[str, float] = self._values.get("seconds", {})
        return [value for key, value in seconds.items() if key.endswith(f"-r{rung}")]

    @property
    def spent_sec(self) -> float:
        return float(self._values.get("spent_sec", 0.0))

    def add_seconds(self, seconds: float) -> None:
        self._values["spent_sec"] = self.spent_sec + seconds
        self._write()

    @property
    def left_out(self) -> dict[str, int]:
        """Recipes that were left out for time, and before which rung."""
        return dict(self._values.get("left_out", {}))

    def leave_out(self, name: str, rung: int) -> None:
        self._values.setdefault("left_out", {})[name] = rung
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
