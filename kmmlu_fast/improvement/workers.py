"""Does one piece of a search's work: evaluates model states, trains one adapter.

In: settings of ``eval`` and ``train``. Out: runs; a loadable adapter directory. Each piece runs in a process
of its own, so that training and evaluation take turns on one GPU and leave no memory behind. Knows nothing of
recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from kmmlu_fast.command.child import run_verb
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import EngineError, TrainError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.reuse import reusable_runs
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models.adapters import ADAPTER_CARD
from kmmlu_fast.runs.run import Run
from kmmlu_fast.training.checkpoints import last_checkpoint
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.state import CHECKPOINTS


class Workers(Protocol):
    """What a search needs done. Tests put others in its place."""

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        """Runs of the settings' model states; finished ones are reused."""
        ...

    def train(self, settings: dict[str, Any]) -> Path:
        """Train, or continue, up to ``stop_after``. Returns the adapter's directory."""
        ...


class ChildWorkers:
    """Evaluates and trains in child processes."""

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        config = build_config(EvalConfig, **settings)
        finished = reusable_runs(config)
        if finished is not None:
            return finished
        run_verb("eval", config, EngineError)
        return run_evaluation(config)  # everything is finished: reads it

    def train(self, settings: dict[str, Any]) -> Path:
        config = build_config(TrainConfig, **settings, resume=True)
        run_verb("train", config, TrainError)
        return trained_adapter_path(config.output_dir)


def trained_adapter_path(folder: Path) -> Path:
    """The finished adapter in a training's directory, or its last checkpoint. TrainError if there is none."""
    if (folder / ADAPTER_CARD).exists():
        return folder
    checkpoint = last_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        raise TrainError(f"{folder}: holds no adapter and no checkpoint; remove it, and run the search again")
    return checkpoint
