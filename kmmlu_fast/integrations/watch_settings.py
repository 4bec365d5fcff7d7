"""Refuses settings of ``watch`` that do not go together.

In: a trainer and the settings. Out: nothing, or a ConfigError. Knows nothing of questions or looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.integrations.look_schedule import FEWEST_QUESTIONS


def check_watch_settings(
    trainer: Any,
    split: str,
    questions: int,
    share_of_time: float | None,
    every: int | None,
    stop_when: str | None,
    base_run: str | Path | None,
) -> None:
    """ConfigError for settings that do not go together, all of them named; before anything is read."""
    if not hasattr(trainer, "add_callback") or getattr(trainer, "model", None) is None:
        raise ConfigError(
            f"watch: a {type(trainer).__name__} is not a trainer; give a transformers or TRL trainer"
        )
    faults = _schedule_faults(questions, share_of_time, every)
    if stop_when not in (None, "worse", "collapsed"):
        faults.append(f"stop_when={stop_when!r} is not 'worse' or 'collapsed'")
    if split == "test" and base_run is None:
        faults.append(
            "split='test' needs base_run, the run directory of the base on test, where looks are counted; or"
            " leave split out, which asks train questions"
        )
    if base_run is not None and not (Path(base_run) / "metrics.json").is_file():
        faults.append(f"base_run={str(base_run)!r} is not a finished run directory")
    head = getattr(trainer.model, "get_output_embeddings", None)
    if head is not None and head() is None:
        faults.append(
            f"a {type(trainer.model).__name__} has no output layer over a vocabulary, so it says no letters"
        )
    if trainer.accelerator.num_processes > 1:
        faults.append("trainings of several processes are not watched yet; train in one process")
    if faults:
        raise ConfigError(f"watch: {'; '.join(faults)}")


def changes_weights_in_backward(trainer: Any) -> bool:
    """Whether weights change before ``on_pre_optimizer_step``: DeepSpeed steps in ``backward``, layerwise
    GaLore and LOMO in gradient hooks.
    """
    name = str(getattr(trainer.args, "optim", "")).lower()
    return bool(getattr(trainer, "is_deepspeed_enabled", False)) or "layerwise" in name or "lomo" in name


def _schedule_faults(questions: int, share_of_time: float | None, every: int | None) -> list[str]:
    faults = []
    if questions < FEWEST_QUESTIONS:
        faults.append(f"questions={questions} is too few to say anything; give {FEWEST_QUESTIONS} or more")
    if share_of_time is not None and not 0 < share_of_time < 1:
        faults.append(f"share_of_time={share_of_time} is not between 0 and 1")
    if share_of_time is None and every is None:
        faults.append("give share_of_time or every")
    if every is not None and every < 1:
        faults.append(f"every={every} is not a number of steps; give 1 or more")
    return faults
