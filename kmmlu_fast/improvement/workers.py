"""Does one piece of a search's work: evaluates model states, draws rows with an engine, trains one adapter.

In: settings of ``eval``, ``sample`` and ``train``. Out: runs; rows; a loadable adapter directory. Each piece
runs in a process of its own, so that training and evaluation take turns on one GPU and leave no memory
behind. A piece that fails is its recipe's fault; a process or machine that was lost is nobody's.
Knows nothing of recipes.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kmmlu_fast.command.child import find_kill_signal, run_verb
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import EngineError, KmmluError, TrainError
from kmmlu_fast.core.locks import acquire_lock
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.reuse import reusable_runs
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.row_drawing import draw_rows_in_child
from kmmlu_fast.models.adapters import ADAPTER_CARD
from kmmlu_fast.runs.run import Run
from kmmlu_fast.sampling.config import SampleConfig
from kmmlu_fast.training.checkpoints import COMPLETE, checkpoint_step, last_checkpoint
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.state import CHECKPOINTS, LOCK

RETRIES = 2  # of a training whose machine was lost
_LEFT_BEHIND_SEC = 120.0  # until a child that lost its parent has ended
_T = TypeVar("_T")


class LostWorkError(EngineError):
    """A process or machine went away while it worked. It ends the command, and the same command continues."""


@dataclass(frozen=True, slots=True)
class TrainedPiece:
    """One training that is done."""

    piece: int  # its place in the list that was given
    path: Path | None  # the adapter's directory; None if it failed
    seconds: float
    error: KmmluError | None = None  # why it failed


class Workers(Protocol):
    """What a search needs done. Tests put others in its place."""

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        """Runs of the settings' model states; finished ones are reused."""
        ...

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        """Train, or continue, each piece up to its ``stop_after``; yields each as it is done or failed.
        LostWorkError for what is no piece's fault.
        """
        ...

    def draw_rows(self, settings: dict[str, Any], excluded: frozenset[str]) -> None:
        """Draw rows whose reasoning an engine writes, none of them from ``excluded`` questions."""
        ...

    def count_slots(self) -> int:
        """Trainings side by side."""
        ...


class ChildWorkers:
    """Evaluates and trains in child processes, one after the other."""

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        config = build_config(EvalConfig, **settings)
        finished = reusable_runs(config)
        if finished is not None:
            return finished
        run_steadily(lambda: run_verb("eval", config, EngineError))
        return run_evaluation(config)  # everything is finished: reads it

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        for place, settings in enumerate(pieces):
            began = time.monotonic()
            try:
                path, error = train_in_child(settings), None
            except LostWorkError:
                raise
            except KmmluError as failed:
                path, error = None, failed
            yield TrainedPiece(place, path, time.monotonic() - began, error)

    def draw_rows(self, settings: dict[str, Any], excluded: frozenset[str]) -> None:
        config = build_config(SampleConfig, **settings)
        run_steadily(lambda: draw_rows_in_child(config, excluded))

    def count_slots(self) -> int:
        return 1


class RayWorkers(ChildWorkers):
    """Trainings side by side, one a GPU (one a core without GPUs), placed and repeated by Ray. The search's
    directory, and the one that the command runs in if paths are relative to it, must be the same on all
    machines.
    """

    def __init__(self, address: str | None, train: Callable[[dict[str, Any]], Path] | None = None) -> None:
        self._address, self._train = address, train or train_in_child
        self._slots = 1

    def count_slots(self) -> int:
        """As many as the cluster had when it was last asked: one before the first training."""
        return self._slots

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        from kmmlu_fast.engines.ray.cluster import connect_ray, import_ray

        ray = import_ray(self._address)
        connected_here = connect_ray(ray, self._address, 1)
        try:
            resources = ray.cluster_resources()
            gpus = 1 if float(resources.get("GPU", 0.0)) > 0 else 0
            self._slots = max(1, int(resources.get("GPU" if gpus else "CPU", 1.0)))
            options = {"max_retries": RETRIES, "retry_exceptions": [LostWorkError]}
            remote = ray.remote(num_cpus=1, num_gpus=gpus, **options)(_time_training)
            waiting = {
                remote.remote(self._train, settings, str(Path.cwd())): place
                for place, settings in enumerate(pieces)
            }
            lost: LostWorkError | None = None
            while waiting:
                ready = _next_ready(ray, list(waiting))
                place = waiting.pop(ready)
                try:
                    path, seconds = _result_of(ray, ready)
                except LostWorkError as error:
                    lost = error  # after the others, whose work is kept
                except KmmluError as failed:
                    yield TrainedPiece(place, None, 0.0, failed)
                else:
                    yield TrainedPiece(place, path, seconds)
            if lost is not None:
                raise lost
        finally:
            if connected_here:
                ray.shutdown()


def _next_ready(ray: Any, waiting: list[Any]) -> Any:
    try:
        (ready,), _ = ray.wait(waiting, num_returns=1)
    except ray.exceptions.RayError as error:
        raise _cluster_lost(error) from error
    return ready


def _cluster_lost(error: Exception) -> LostWorkError:
    return LostWorkError(
        f"a training on Ray was lost, after {RETRIES + 1} attempts or with its cluster"
        f" ({one_line(str(error), 200)}); the same command continues"
    )


def _result_of(ray: Any, reference: Any) -> tuple[Path, float]:
    """A training's result; its own error as it was raised, LostWorkError if Ray lost it."""
    try:
        path, seconds = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, KmmluError):
            raise cause from error
        raise TrainError(f"a training on Ray failed: {one_line(str(cause), 300)}") from error
    except ray.exceptions.OutOfMemoryError as error:
        raise TrainError(f"Ray ended a training for want of memory: {one_line(str(error), 300)}") from error
    except ray.exceptions.RayError as error:
        raise _cluster_lost(error) from error
    return path, seconds


def _time_training(
    train: Callable[[dict[str, Any]], Path], settings: dict[str, Any], folder: str
) -> tuple[Path, float]:
    """On Ray: trains in the command's directory where there is one, for paths that are relative to it."""
    began = time.monotonic()
    with contextlib.chdir(folder) if Path(folder).is_dir() else contextlib.nullcontext():
        return train(settings), time.monotonic() - began


def train_in_child(settings: dict[str, Any]) -> Path:
    """Train in a child process. Returns the adapter's directory."""
    config = build_config(TrainConfig, **settings, resume=True)
    await_training_end(config.output_dir)
    run_steadily(lambda: run_verb("train", config, TrainError))
    return trained_adapter_path(config.output_dir)


def await_training_end(folder: Path) -> None:
    """Wait for a training that a killed command, or a lost machine, left behind: that it is in the way is not
    its recipe's fault. LostWorkError if it does not end.
    """
    lock = folder / CHECKPOINTS / LOCK
    if lock.exists():
        left = LostWorkError(
            f"{folder}: a process that was left behind is still training there; wait for it, or end it, and"
            " the same command continues"
        )
        acquire_lock(lock, left, wait_sec=_LEFT_BEHIND_SEC).close()


def run_steadily(work: Callable[[], _T]) -> _T:
    """Work done in a child process, repeated once if that was killed (SIGKILL): a second time counts as the
    work's own fault, for it may take all memory every time. LostWorkError for other signals from outside.
    """
    try:
        return work()
    except KmmluError as error:
        _refuse_lost_work(error)
        log_note(f"killed ({one_line(str(error), 200)}): continued once more")
    try:
        return work()
    except KmmluError as error:
        _refuse_lost_work(error)
        raise type(error)(
            f"killed twice (SIGKILL), perhaps for want of memory: {one_line(str(error), 300)}"
        ) from error


def _refuse_lost_work(error: KmmluError) -> None:
    """Raise ``error`` unless the child was killed, LostWorkError if it was asked to end."""
    number = find_kill_signal(error)
    if not number:
        raise error
    if number != signal.SIGKILL:
        raise LostWorkError(f"{error}: the same command continues") from error


def choose_workers(config: ImproveConfig) -> Workers:
    """Ray's with ``--engine ray`` (or ``--ray-address``), else child processes of this one."""
    return RayWorkers(config.ray_address) if find_engine_kind(config.engine).name == "ray" else ChildWorkers()


def trained_adapter_path(folder: Path) -> Path:
    """The finished adapter in a training's directory, or its last checkpoint. TrainError if there is none."""
    if (folder / ADAPTER_CARD).exists():
        return folder
    checkpoint = last_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        raise TrainError(f"{folder}: holds no adapter and no checkpoint; remove it, and run the search again")
    return checkpoint


def newest_step(folder: Path) -> Path | None:
    """How far a training's directory is: the finished adapter, else the newest complete checkpoint."""
    if (folder / ADAPTER_CARD).exists():
        return folder
    complete = [path for path in (folder / CHECKPOINTS).glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(complete, key=checkpoint_step, default=None)
