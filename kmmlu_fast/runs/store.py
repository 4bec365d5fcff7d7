"""The run directory: atomic parts while running, one parquet file when complete, resume by fingerprint.

In: predictions, one at a time. Out: ``runs/<readable name>-<fingerprint>/`` with config.json, environment.json,
``predictions/part-*.parquet`` while running, ``predictions.parquet`` and metrics.json when complete. Every file is written beside its
place, synced and renamed, so that a kill at any moment leaves whole files only. Knows nothing of vLLM or prompts.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from pathlib import Path
from typing import IO, Any

import polars as pl

from kmmlu_fast.core.digests import fingerprint
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import read_json, write_bytes_atomically, write_json_atomically
from kmmlu_fast.core.schema import PREDICTION_SCHEMA, Prediction, predictions_frame
from kmmlu_fast.runs.run import Run, count_scores

FLUSH_SEC = 5.0  # a part is written at least this often while answers come in
FLUSH_ROWS = 4096


def load_run(path: str | Path) -> Run:
    """A complete run directory; RunError if it is missing, incomplete or not one."""
    folder = Path(path)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run directory; give one that `python -m kmmlu_fast.eval` wrote, such as runs/<name>")
    if not (folder / "config.json").exists():
        raise RunError(f"{folder}: has no config.json, so it is not a run directory; give one that `python -m kmmlu_fast.eval` wrote")
    if not (folder / "predictions.parquet").exists() or not (folder / "metrics.json").exists():
        raise RunError(f"{folder}: the run is not complete; start the same eval command again to finish it")
    try:
        predictions = pl.read_parquet(folder / "predictions.parquet")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(
            f"{folder / 'predictions.parquet'}: cannot be read ({str(error).splitlines()[0]}); run eval with --overwrite"
        ) from error
    absent = [name for name in PREDICTION_SCHEMA if name not in predictions.columns]
    if absent:
        raise RunError(
            f"{folder / 'predictions.parquet'}: lacks column {', '.join(absent)}; it was written by another version: run eval again"
        )
    config = read_json(folder / "config.json")
    environment = read_json(folder / "environment.json") if (folder / "environment.json").exists() else {}
    name = str(config.get("name", folder.name))
    predictions = predictions.select(PREDICTION_SCHEMA.names())
    facts = dict(config.get("fingerprint_parts") or {})
    metrics = read_json(folder / "metrics.json")
    return Run(name, "run", str(folder), predictions, count_scores(predictions), facts, config, environment, metrics, folder)


class RunStore:
    """One run directory being written. ``answered`` holds the question ids that parts on disk already have."""

    def __init__(self, root: Path, name: str, fingerprint_parts: dict[str, Any], config: dict[str, Any], overwrite: bool = False) -> None:
        """Open, or continue, ``root/<name>-<fingerprint>``. RunError if it is in use, of another fingerprint, or cannot be written."""
        self.fingerprint = fingerprint(fingerprint_parts)
        self.path = root / f"{name}-{self.fingerprint}"
        self.answered: set[str] = set()
        self._parts = self.path / "predictions"
        self._buffer: list[Prediction] = []
        self._flushed = time.monotonic()
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(root / f".{self.path.name}.lock", self.path)
            if overwrite and self.path.exists():
                shutil.rmtree(self.path)
            self._open(name, fingerprint_parts, config)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); give another --output-dir") from error

    @property
    def complete(self) -> bool:
        return (self.path / "metrics.json").exists() and (self.path / "predictions.parquet").exists()

    def _open(self, name: str, parts: dict[str, Any], config: dict[str, Any]) -> None:
        if self.path.exists() and any(self.path.iterdir()):
            self._refuse_other(parts)
        self._parts.mkdir(parents=True, exist_ok=True)
        if not self.complete:
            content = {"name": f"{name}-{self.fingerprint}", "fingerprint": self.fingerprint, "fingerprint_parts": parts, **config}
            write_json_atomically(self.path / "config.json", content)
        for part in sorted(self._parts.glob("part-*.parquet")):
            self.answered |= set(pl.read_parquet(part, columns=["question_id"])["question_id"])
        self._next = 1 + max((int(p.stem.split("-")[1]) for p in self._parts.glob("part-*.parquet")), default=-1)

    def _refuse_other(self, parts: dict[str, Any]) -> None:
        if not (self.path / "config.json").exists():
            raise RunError(f"{self.path}: is not empty and has no config.json; move it away, or run with --overwrite to replace it")
        found = read_json(self.path / "config.json").get("fingerprint_parts", {})
        differing = [
            f"{key} ({found.get(key)!r} there, {parts.get(key)!r} here)"
            for key in sorted({*found, *parts})
            if found.get(key) != parts.get(key)
        ]
        if differing:
            raise RunError(
                f"{self.path}: holds another run, differing in {', '.join(differing)}; give another --output-dir, or --overwrite"
            )

    def append(self, prediction: Prediction) -> None:
        """Buffer; a part is written every FLUSH_SEC seconds or FLUSH_ROWS rows."""
        self._buffer.append(prediction)
        if len(self._buffer) >= FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_SEC:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as one part."""
        if self._buffer:
            write_bytes_atomically(self._parts / f"part-{self._next:05d}.parquet", _parquet(predictions_frame(self._buffer)))
            self._next += 1
            self._buffer = []
        self._flushed = time.monotonic()

    def finish(self, order: list[str], metrics: Any, environment: dict[str, Any]) -> Run:
        """Join the parts in dataset order, write ``metrics(frame)``, drop the parts. RunError if a question is missing or twice."""
        self.flush()
        frame = pl.concat([pl.read_parquet(part) for part in sorted(self._parts.glob("part-*.parquet"))])
        wanted = pl.DataFrame({"question_id": order})
        if len(frame) != len(order) or frame["question_id"].n_unique() != len(order):
            raise RunError(f"{self.path}: holds {len(frame)} predictions for {len(order)} questions; run with --overwrite")
        frame = wanted.join(frame, on="question_id", how="left", maintain_order="left").select(PREDICTION_SCHEMA.names())
        write_bytes_atomically(self.path / "predictions.parquet", _parquet(frame))
        write_json_atomically(self.path / "environment.json", environment)
        write_json_atomically(self.path / "metrics.json", metrics(frame))
        shutil.rmtree(self._parts)
        self.close()
        return load_run(self.path)

    def close(self) -> None:
        """Keep what was answered, release the directory."""
        if not self._lock.closed:
            if self._buffer:
                self.flush()
            self._lock.close()
            self._lock_path.unlink(missing_ok=True)

    @property
    def _lock_path(self) -> Path:
        return Path(self._lock.name)


def _parquet(frame: pl.DataFrame) -> bytes:
    import io

    target = io.BytesIO()
    frame.write_parquet(target, compression="zstd")
    return target.getvalue()


def _lock(path: Path, run: Path) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise RunError(f"{run}: another process is writing this run; wait for it, or give another --output-dir") from error
    return file
