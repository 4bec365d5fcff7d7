"""The run directory: atomic parts while running, one parquet file when complete, resume by fingerprint.

In: predictions, one at a time. Out: ``runs/<readable name>-<fingerprint>/`` with config.json;
``predictions/part-*.parquet`` while running; ``predictions.parquet``, environment.json and metrics.json when
complete; prefix.json and order.parquet while it holds only the first questions of a random order (an
evaluation that may stop early). Every file is written under a temporary name, synced and renamed, so a kill
at any moment leaves only whole files. Knows nothing of vLLM or prompts.

``overwrite`` works in ``.<name>-<fingerprint>.new`` and moves that into place when it is complete. Until then
the old run stays as it was, and the same command continues where it was killed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
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
from kmmlu_fast.core.partials import sweep_partials
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA, predictions_frame
from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.runs.checks import check_predictions
from kmmlu_fast.runs.layout import (
    ORDER,
    OVERWRITE_HINT,
    PREFIX,
    build_directory_run,
    drop_default_columns,
    is_complete_run,
    load_early_stopped_run,
    read_part,
    read_predictions_file,
    read_question_order,
    read_run_config,
    read_stored_parts,
)
from kmmlu_fast.runs.metrics import Metrics, PrefixMetrics, parse_metrics
from kmmlu_fast.runs.run import Run

FLUSH_SEC = 5.0  # a part is written at least this often while answers come in
FLUSH_ROWS = 4096


def load_run_directory(path: str | Path, prefix: bool = False) -> Run:
    """A complete run directory; RunError if it is missing, incomplete or not one, or if an evaluation did not
    write what it holds.

    ``prefix``: also read a run that stopped early, up to the first unanswered question of its order
    (``Run.prefix`` is set).
    """
    folder = Path(path)
    if not folder.is_dir():
        old, hint = folder.with_name(f".{folder.name}.old"), ""
        if old.is_dir():
            hint = f"; a killed --overwrite left it in {old}: run the same eval command again"
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
    config = read_run_config(folder)
    environment = read_json(folder / "environment.json") if (folder / "environment.json").exists() else {}
    metrics = parse_metrics(read_json(folder / "metrics.json"), folder / "metrics.json", Metrics)
    return build_directory_run(folder, predictions, config, metrics, environment)


class RunStore:
    """One run directory being written. ``answered``: the question ids in the parts on disk."""

    def __init__(
        self,
        root: Path,
        name: str,
        fingerprint_parts: dict[str, Any],
        config: dict[str, Any],
        overwrite: bool = False,
    ) -> None:
        """Open, or continue, ``root/<name>-<fingerprint>``. RunError if it is in use, holds another run, or
        cannot be written.
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
                    f"{folder}: is a link, which a run never follows; give --output-dir the real directory,"
                    " or remove the link"
                )
        finish_directory_swap(self._fresh, self._place, is_complete_run(self._fresh))
        if overwrite and is_complete_run(self._fresh):  # killed just before it was moved into place
            self._move_into_place()
        elif overwrite and self._fresh.exists() and not self._is_resumable(parts):
            remove_tree(self._fresh)
        self._open_directory(name, parts, config)

    def _move_into_place(self) -> None:
        """With --overwrite, replace the old run by the new one."""
        if self.path != self._place:
            swap_directory(self.path, self._place)
            self.path, self._parts = self._place, self._place / "predictions"

    @property
    def complete(self) -> bool:
        return is_complete_run(self.path)

    def _open_directory(self, name: str, parts: dict[str, Any], config: dict[str, Any]) -> None:
        if self.path.exists() and not self._is_empty():
            self._refuse_other_run(parts)
        self.path.mkdir(parents=True, exist_ok=True)
        if self.complete:
            self._remove_leftovers()
        else:
            remove_partials(self.path)
            if (self.path / "config.json").exists():  # of the same fingerprint: keep it as it is
                read_run_config(self.path)
            else:
                content = {
                    "name": f"{name}-{self.fingerprint}",
                    "fingerprint": self.fingerprint,
                    "fingerprint_parts": parts,
                    **config,
                }
                write_json_atomically(self.path / "config.json", content)
            self._parts.mkdir(exist_ok=True)
        for part in self._part_files():
            self.answered |= set(read_part(part)["question_id"])
        self._next = 1 + max((int(p.stem.split("-")[1]) for p in self._part_files()), default=-1)

    def _remove_leftovers(self) -> None:
        """Remove what a kill between metrics.json and the end of ``finish`` left in a complete run."""
        with contextlib.suppress(OSError):  # they only take up space
            remove_tree(self._parts)
            for name in (PREFIX, ORDER):
                (self.path / name).unlink(missing_ok=True)
            sweep_partials(self.path)

    def _is_empty(self) -> bool:
        """Whether it holds only what a kill before config.json leaves: partial files and an empty folder."""
        others = [p for p in self.path.iterdir() if not p.name.endswith(".partial")]
        return not others or (others == [self._parts] and not self._part_files())

    def _is_resumable(self, parts: dict[str, Any]) -> bool:
        """Whether a killed --overwrite can be continued; what it left is not finished work."""
        try:
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
        stored_parts = read_json(self.path / "config.json").get("fingerprint_parts", {})
        if not isinstance(stored_parts, dict):
            raise RunError(
                f"{self.path / 'config.json'}: its fingerprint_parts are not an object; move the directory"
                f" away, or {OVERWRITE_HINT}"
            )
        if differences := describe_differences(stored_parts, parts):
            raise RunError(
                f"{self.path}: holds another run, differing in {', '.join(differences)}; give another"
                " --output-dir, or --overwrite"
            )

    def append(self, prediction: Prediction) -> None:
        """Buffer; a part is written every FLUSH_SEC seconds or FLUSH_ROWS rows."""
        self._buffer.append(prediction)
        if len(self._buffer) >= FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_SEC:
            self.flush()

    def flush(self) -> None:
        """Write the buffered predictions as one part. RunError if another machine has taken the run over."""
        self._lock.refuse_if_lost()
        if self._buffer:
            path = self._parts / f"part-{self._next:05d}.parquet"
            write_parquet_atomically(path, predictions_frame(self._buffer))
            self._next += 1
            self._buffer = []
        self._flushed = time.monotonic()

    def stored_predictions(self) -> pl.DataFrame:
        """The predictions of the parts on disk, PREDICTION_SCHEMA."""
        return read_stored_parts(self.path)

    def stored_order(self) -> pl.DataFrame | None:
        """The order of a run that may stop early, with its weights; None for a new run."""
        return read_question_order(self.path) if (self.path / PREFIX).exists() else None

    def stored_seed(self) -> int:
        """The seed of the stored order."""
        return parse_metrics(read_json(self.path / PREFIX), self.path / PREFIX, PrefixMetrics).seed

    def begin_prefix(self, order: pl.DataFrame, prefix: PrefixMetrics) -> None:
        """Mark the run as one that may stop early. ``order``: question_id and answer of all questions, in the
        order of asking.
        """
        stored = self.stored_order()
        if stored is not None and "weight_0" in stored.columns:
            raise RunError(
                f"{self.path}: was asked in an adaptive order (--order adaptive); finish the pass without"
                " stopping, or give another --output-dir"
            )
        if stored is not None and not stored.equals(order):
            raise RunError(
                f"{self.path}: was asked in the random order of --seed"
                f" {read_json(self.path / PREFIX).get('seed')}; give the same seed, finish the pass without"
                " stopping, or give another --output-dir"
            )
        if stored is None:
            write_parquet_atomically(self.path / ORDER, order)
            write_json_atomically(self.path / PREFIX, prefix.to_json())

    def write_order(self, order: pl.DataFrame, prefix: PrefixMetrics) -> None:
        """Replace the order of a run that may stop early, or begin one. What was asked along the old order
        must be the beginning of the new one.
        """
        write_parquet_atomically(self.path / ORDER, order)
        if not (self.path / PREFIX).exists():
            write_json_atomically(self.path / PREFIX, prefix.to_json())

    def pause(self, prefix: PrefixMetrics) -> Run:
        """Keep the answers, write ``prefix``, release the directory: the run can continue from here."""
        self.flush()
        write_json_atomically(self.path / PREFIX, prefix.to_json())
        self._move_into_place()
        self.close()
        return load_run_directory(self.path, prefix=True)

    def finish(
        self, order: list[str], metrics: Callable[[pl.DataFrame], Metrics], environment: dict[str, Any]
    ) -> Run:
        """Join the parts in dataset order, write ``metrics(frame)``, delete the parts. RunError if a question
        is missing or answered twice.
        """
        self.flush()
        frame = pl.concat([read_predictions_file(part) for part in self._part_files()])
        if len(frame) != len(order) or frame["question_id"].n_unique() != len(order):
            raise RunError(
                f"{self.path}: holds {len(frame)} predictions for {len(order)} questions; run with"
                " --overwrite"
            )
        ids = pl.DataFrame({"question_id": order})
        frame = ids.join(frame, on="question_id", how="left", maintain_order="left")
        frame = frame.select(PREDICTION_SCHEMA.names())
        write_parquet_atomically(self.path / "predictions.parquet", drop_default_columns(frame))
        write_json_atomically(self.path / "environment.json", environment)
        write_json_atomically(self.path / "metrics.json", metrics(frame).to_json())
        self._remove_leftovers()
        self._move_into_place()
        self.close()
        return load_run_directory(self.path)

    def close(self) -> None:
        """Keep the answers, release the directory."""
        if self._lock.closed:
            return
        try:
            if self._buffer:
                self.flush()
        finally:
            self._lock.close()
