"""The run directory: atomic parts while running, one parquet file when complete, resume by fingerprint.

In: predictions, one at a time. Out: ``runs/<readable name>-<fingerprint>/`` with config.json,
environment.json, ``predictions/part-*.parquet`` while running, ``predictions.parquet`` and metrics.json when
complete; prefix.json and order.parquet while it holds a beginning of a random order (an evaluation that may
stop early). Every file is written beside its place, synced and renamed, so that a kill at any moment leaves
whole files only. Knows nothing of vLLM or prompts.

``overwrite`` works in ``.<name>-<fingerprint>.new`` and puts that in place when it is complete: until then
the run that was there stays what it was, and the same command continues where it was killed.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.digests import compute_fingerprint, describe_differences
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import (
    finish_directory_swap,
    read_json,
    remove_partials,
    remove_tree,
    swap_directory,
    write_json_atomically,
    write_parquet_atomically,
)
from kmmlu_fast.core.locks import Lock, acquire_lock
from kmmlu_fast.core.schema import PREDICTION_SCHEMA, Prediction, predictions_frame
from kmmlu_fast.runs.checks import check_config, check_metrics, check_predictions
from kmmlu_fast.runs.layout import (
    AGAIN,
    ORDER,
    PREFIX,
    drop_default_columns,
    is_complete_run,
    load_early_stopped_run,
    read_part,
    read_predictions_file,
    read_question_order,
    read_stored_parts,
)
from kmmlu_fast.runs.run import Run, count_subject_scores

FLUSH_SEC = 5.0  # a part is written at least this often while answers come in
FLUSH_ROWS = 4096


def load_run_directory(path: str | Path, prefix: bool = False) -> Run:
    """A complete run directory; RunError if it is missing, incomplete or not one, or holds what no evaluation
    wrote.

    ``prefix``: one that stopped early is read too (``Run.prefix`` is set): as many questions of its order as
    it has from the start.
    """
    folder = Path(path)
    if not folder.is_dir():
        aside = folder.with_name(f".{folder.name}.old")
        hint = (
            f"; a killed --overwrite left it in {aside}: run the same eval command again"
            if aside.is_dir()
            else ""
        )
        raise RunError(
            f"{folder}: no such run directory; give one that `python -m kmmlu_fast.eval` wrote, such as"
            f" runs/<name>{hint}"
        )
    if not (folder / "config.json").exists():
        raise RunError(
            f"{folder}: has no config.json, so it is not a run directory; give one that `python -m"
            " kmmlu_fast.eval` wrote"
        )
    if not is_complete_run(folder):
        if (folder / PREFIX).exists():
            return load_early_stopped_run(folder, prefix)
        raise RunError(f"{folder}: the run is not complete; start the same eval command again to finish it")
    answers = folder / "predictions.parquet"
    predictions = check_predictions(read_predictions_file(answers), answers)
    config = check_config(read_json(folder / "config.json"), folder / "config.json")
    environment = read_json(folder / "environment.json") if (folder / "environment.json").exists() else {}
    name = str(config.get("name", folder.name))
    facts = dict(config.get("fingerprint_parts") or {})
    metrics = check_metrics(read_json(folder / "metrics.json"), folder / "metrics.json")
    return Run(
        name=name,
        kind="run",
        source=str(folder),
        predictions=predictions,
        scores=count_subject_scores(predictions),
        facts=facts,
        config=config,
        environment=environment,
        metrics=metrics,
        path=folder,
    )


class RunStore:
    """One run directory being written. ``answered`` holds the question ids that parts on disk
    already have.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        fingerprint_parts: dict[str, Any],
        config: dict[str, Any],
        overwrite: bool = False,
    ) -> None:
        """Open, or continue, ``root/<name>-<fingerprint>``. RunError if it is in use, of
        another fingerprint, or cannot be written.
        """
        self.fingerprint = compute_fingerprint(fingerprint_parts)
        self._place = root / f"{name}-{self.fingerprint}"
        self._fresh = root / f".{self._place.name}.new"
        self.path = self._fresh if overwrite else self._place
        self.answered: set[str] = set()
        self._parts = self.path / "predictions"
        self._buffer: list[Prediction] = []
        self._flushed = time.monotonic()
        try:
            root.mkdir(parents=True, exist_ok=True)
            in_use = RunError(
                f"{self._place}: another process is writing this run; wait for it, or give another"
                " --output-dir"
            )
            self._lock: Lock = acquire_lock(root / f".{self._place.name}.lock", in_use)
            try:
                self._open_locked(name, fingerprint_parts, config, overwrite)
            except BaseException:
                self._lock.close()
                raise
        except OSError as error:
            raise RunError(
                f"{self._place}: cannot be written ({error.strerror}); give another --output-dir"
            ) from error

    def _open_locked(self, name: str, parts: dict[str, Any], config: dict[str, Any], overwrite: bool) -> None:
        for folder in (self._place, self._fresh):
            if folder.is_symlink():
                raise RunError(
                    f"{folder}: is a link, which a run never follows; give --output-dir the real place, or"
                    " remove it"
                )
        finish_directory_swap(self._fresh, self._place, is_complete_run(self._fresh))
        if overwrite and is_complete_run(self._fresh):  # killed when all that was left was to put it in place
            swap_directory(self._fresh, self._place)
            self.path = self._place
        elif overwrite and self._fresh.exists() and not self._is_resumable(parts):
            remove_tree(self._fresh)
        self._parts = self.path / "predictions"
        self._open_directory(name, parts, config)

    @property
    def complete(self) -> bool:
        return is_complete_run(self.path)

    def _open_directory(self, name: str, parts: dict[str, Any], config: dict[str, Any]) -> None:
        if self.path.exists() and not self._is_empty():
            self._refuse_other_run(parts)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.complete:
            remove_partials(self.path)
            content = {
                "name": f"{name}-{self.fingerprint}",
                "fingerprint": self.fingerprint,
                "fingerprint_parts": parts,
                **config,
            }
            if (self.path / "config.json").exists():  # ours, by its fingerprint: it stays as it was written
                check_config(read_json(self.path / "config.json"), self.path / "config.json")
            else:
                write_json_atomically(self.path / "config.json", content)
            self._parts.mkdir(exist_ok=True)
        for part in self._part_files():
            self.answered |= set(read_part(part)["question_id"])
        self._next = 1 + max((int(p.stem.split("-")[1]) for p in self._part_files()), default=-1)

    def _is_empty(self) -> bool:
        """Nothing there but what a kill before config.json leaves: half-written files, and the
        parts' folder without parts.
        """
        foreign = [p for p in self.path.iterdir() if not p.name.endswith(".partial")]
        return not foreign or (foreign == [self._parts] and not self._part_files())

    def _is_resumable(self, parts: dict[str, Any]) -> bool:
        """Whether what a killed --overwrite left can be continued; it holds nobody's finished work."""
        try:
            self._parts = self.path / "predictions"
            if not self._is_empty():
                self._refuse_other_run(parts)
            return all(len(read_part(part)) > 0 for part in self._part_files())
        except (RunError, OSError):
            return False

    def _part_files(self) -> list[Path]:
        return sorted(p for p in self._parts.glob("part-*.parquet") if p.stem.split("-")[1].isdigit())

    def _refuse_other_run(self, parts: dict[str, Any]) -> None:
        if not (self.path / "config.json").exists():
            raise RunError(
                f"{self.path}: is not empty and has no config.json; move it away, or run with --overwrite to"
                " replace it"
            )
        found = read_json(self.path / "config.json").get("fingerprint_parts", {})
        if not isinstance(found, dict):
            raise RunError(
                f"{self.path / 'config.json'}: its fingerprint_parts are no object; move the directory away,"
                f" or {AGAIN}"
            )
        if other := describe_differences(found, parts):
            raise RunError(
                f"{self.path}: holds another run, differing in {', '.join(other)}; give another"
                " --output-dir, or --overwrite"
            )

    def append(self, prediction: Prediction) -> None:
        """Buffer; a part is written every FLUSH_SEC seconds or FLUSH_ROWS rows."""
        self._buffer.append(prediction)
        if len(self._buffer) >= FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_SEC:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as one part."""
        if self._buffer:
            write_parquet_atomically(
                self._parts / f"part-{self._next:05d}.parquet", predictions_frame(self._buffer)
            )
            self._next += 1
            self._buffer = []
        self._flushed = time.monotonic()

    def stored_predictions(self) -> pl.DataFrame:
        """What the parts on disk hold, PREDICTION_SCHEMA."""
        return read_stored_parts(self.path)

    def begin_prefix(self, order: pl.DataFrame, prefix: dict[str, Any]) -> None:
        """Mark the directory as one that may stop early; ``order``: question_id and answer of
        all questions, in the order of asking.
        """
        if (self.path / PREFIX).exists() and not read_question_order(self.path).equals(order):
            raise RunError(
                f"{self.path}: was asked in the random order of --seed"
                f" {read_json(self.path / PREFIX).get('seed')}; give the same seed, finish the pass without"
                " stopping, or give another --output-dir"
            )
        if not (self.path / PREFIX).exists():
            write_parquet_atomically(self.path / ORDER, order)
            write_json_atomically(self.path / PREFIX, prefix)

    def pause(self, prefix: dict[str, Any]) -> Run:
        """Keep what was answered, write what it says, release the directory: the run can go on from here."""
        self.flush()
        write_json_atomically(self.path / PREFIX, prefix)
        if self.path != self._place:  # --overwrite
            swap_directory(self.path, self._place)
            self.path, self._parts = self._place, self._place / "predictions"
        self.close()
        return load_run_directory(self.path, prefix=True)

    def finish(self, order: list[str], metrics: Any, environment: dict[str, Any]) -> Run:
        """Join the parts in dataset order, write ``metrics(frame)``, drop the parts. RunError
        if a question is missing or twice.
        """
        self.flush()
        frame = pl.concat([read_predictions_file(part) for part in self._part_files()])
        wanted = pl.DataFrame({"question_id": order})
        if len(frame) != len(order) or frame["question_id"].n_unique() != len(order):
            raise RunError(
                f"{self.path}: holds {len(frame)} predictions for {len(order)} questions; run with"
                " --overwrite"
            )
        frame = wanted.join(frame, on="question_id", how="left", maintain_order="left").select(
            PREDICTION_SCHEMA.names()
        )
        write_parquet_atomically(self.path / "predictions.parquet", drop_default_columns(frame))
        write_json_atomically(self.path / "environment.json", environment)
        write_json_atomically(self.path / "metrics.json", metrics(frame))
        shutil.rmtree(self._parts)
        for name in (PREFIX, ORDER):
            (self.path / name).unlink(missing_ok=True)
        if self.path != self._place:
            swap_directory(self.path, self._place)
            self.path, self._parts = self._place, self._place / "predictions"
        self.close()
        return load_run_directory(self.path)

    def close(self) -> None:
        """Keep what was answered, release the directory."""
        if self._lock.closed:
            return
        try:
            if self._buffer:
                self.flush()
        finally:
            self._lock.close()
