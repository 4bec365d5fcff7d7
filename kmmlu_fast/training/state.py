"""Whose directory it is: what is being trained there, whether it is finished, whether ``--resume`` may go on.

In: a ``TrainConfig`` and what decides the result. Out: training.json, or TrainError that names what differs.
Knows nothing of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import describe_differences
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import PARTIAL, read_json, write_json_atomically
from kmmlu_fast.core.locks import Lock, acquire_lock
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.models.adapters import ADAPTER_CARD as CARD
from kmmlu_fast.models.adapters import STATE
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.inputs import data_digest

CHECKPOINTS = "checkpoints"  # work in progress, removed at the end with the lock in it
LOCK = ".lock"


def is_training_finished(config: TrainConfig) -> bool:
    """True if --resume finds the work done. TrainError if the directory is in the way: adapters
    are never overwritten.
    """
    folder = config.output_dir
    if folder.exists() and not folder.is_dir():
        raise TrainError(f"--output-dir {folder}: is a file; give a directory")
    if not folder.exists() or _is_empty(folder):
        return False
    # The card, then PEFT's config, are the last things written.
    if (folder / CARD).exists() and (
        (folder / "adapter_config.json").exists() or not (folder / STATE).exists()
    ):
        if config.resume and (folder / STATE).exists():
            _refuse_other_settings(
                folder, {"settings": config.result_settings(), "data_digest": data_digest(config)}
            )
            log_note(f"{folder}: already trained; nothing to resume")
            return True
        raise TrainError(
            f"--output-dir {folder}: holds a finished adapter, which is never overwritten; give another"
            " directory"
        )
    if (folder / STATE).exists():
        if config.resume:
            return False
        raise TrainError(
            f"--output-dir {folder}: holds an unfinished training; give --resume to continue it, or another"
            " directory"
        )
    raise TrainError(
        f"--output-dir {folder}: is not empty and holds no training of this tool; give a new directory"
    )


def _is_empty(folder: Path) -> bool:
    """Nothing there but what a kill before the first file leaves: a lock in the checkpoints' folder."""
    for path in folder.iterdir():
        locked = (
            path.name == CHECKPOINTS and path.is_dir() and all(inner.name == LOCK for inner in path.iterdir())
        )
        if not locked and not path.name.endswith(PARTIAL):
            return False
    return True


def lock_output_directory(config: TrainConfig) -> Lock:
    """This directory's lock: two trainings would overwrite each other's checkpoints. It goes
    when the process does.
    """
    work = config.output_dir / CHECKPOINTS
    try:
        work.mkdir(parents=True, exist_ok=True)
        return acquire_lock(
            work / LOCK,
            TrainError(f"--output-dir {config.output_dir}: another process is training there; wait for it"),
        )
    except OSError as error:
        raise TrainError(
            f"--output-dir {config.output_dir}: cannot be written ({error.strerror}); give another directory"
        ) from error


def resumed_micro_batch(config: TrainConfig) -> int | None:
    """A resumed run keeps its micro-batch: free memory may be different now."""
    state = config.output_dir / STATE
    if not (config.resume and state.exists()):
        return None
    found = read_json(state, TrainError).get("micro_batch")
    if type(found) is not int or found < 1:
        raise TrainError(
            f"{state}: micro_batch is {bounded_repr(found)}; the file was damaged: train into a new directory"
        )
    return found


def claim_output_directory(config: TrainConfig, identity: dict[str, Any], micro_batch: int) -> None:
    """Mark the directory as this training's. A resumed one must be the same in all that decides
    the result.
    """
    state = config.output_dir / STATE
    if state.exists():
        _refuse_other_settings(config.output_dir, identity)
        return
    if config.resume:
        log_note(f"--resume: {config.output_dir} holds no training yet; starting from the beginning")
    try:
        write_json_atomically(state, {**identity, "micro_batch": micro_batch})
    except OSError as error:
        raise TrainError(
            f"--output-dir {config.output_dir}: cannot be written ({error.strerror}); give another directory"
        ) from error


def _refuse_other_settings(folder: Path, identity: dict[str, Any]) -> None:
    found = read_json(folder / STATE, TrainError)
    other: list[str] = []
    for part, here in identity.items():
        there = found.get(part)
        if isinstance(here, dict) and isinstance(there, dict):
            other += describe_differences(there, here)
        else:
            other += describe_differences({part: there}, {part: here})
    if other:
        raise TrainError(
            f"--resume: {folder} was trained with other settings: {', '.join(other)}; use the same, or"
            " another --output-dir"
        )
