"""Does one piece of a search's work: evaluates model states, trains one adapter.

In: settings of ``eval`` and ``train``. Out: runs; a loadable adapter directory. Each piece runs in a process
of its own, so that training and evaluation take turns on one GPU and leave no memory behind. Knows nothing of
recipes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kmmlu_fast.command.child import run_verb
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import EngineError, KmmluError, TrainError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.reuse import reusable_runs
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.models.adapters import ADAPTER_CARD
from kmmlu_fast.runs.run import Run
from kmmlu_fast.training.checkpoints import last_checkpoint
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.state import CHECKPOINTS

RETRIES = 2  # of a training whose machine was lost


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
        """Train, or continue, each piece up to its ``stop_after``; yields each as it is done or failed."""
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
        run_verb("eval", config, EngineError)
        return run_evaluation(config)  # everything is finished: reads it

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        for place, settings in enumerate(pieces):
            began = time.monotonic()
            try:
                path, error = train_in_child(settings), None
            except KmmluError as failed:
                path, error = None, failed
            yield TrainedPiece(place, path, time.monotonic() - began, error)

    def count_slots(self) -> int:
        return 1


class RayWorkers(ChildWorkers):
    """Trainings side by side, one a GPU (one a core without GPUs), placed and repeated by Ray. The search's
    directory must be the same on all machines.
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
            remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_time_training)
            waiting = {remote.remote(self._train, settings): place for place, settings in enumerate(pieces)}
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                place = waiting.pop(ready)
                try:
                    path, seconds = _result_of(ray, ready)
                except KmmluError as failed:
                    yield TrainedPiece(place, None, 0.0, failed)
                else:
                    yield TrainedPiece(place, path, seconds)
        finally:
            if connected_here:
                ray.shutdown()


def _result_of(ray: Any, reference: Any) -> tuple[Path, float]:
    """A training's result; its own error as it was raised, TrainError if Ray lost it."""
    try:
        path, seconds = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, KmmluError):
            raise cause from error
        raise TrainError(f"a training on Ray failed: {one_line(str(cause), 300)}") from error
    except ray.exceptions.RayError as error:
        raise TrainError(
            f"a training on Ray was lost {RETRIES + 1} times ({one_line(str(error), 200)}); the same command"
            " continues"
        ) from error
    return path, seconds


def _time_training(train: Callable[[dict[str, Any]], Path], settings: dict[str, Any]) -> tuple[Path, float]:
    began = time.monotonic()
    return train(settings), time.monotonic() - began


def train_in_child(settings: dict[str, Any]) -> Path:
    """Train in a child process. Returns the adapter's directory."""
    config = build_config(TrainConfig, **settings, resume=True)
    run_verb("train", config, TrainError)
    return trained_adapter_path(config.output_dir)


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
