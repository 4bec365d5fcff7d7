"""The state of an output directory: what is trained there, if it is finished, if ``--resume`` may continue.

In: a ``TrainConfig`` and what decides the result. Out: training.json, or a TrainError that names the
differences. Knows nothing of training.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import describe_differences
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import PARTIAL, read_json, write_json_atomically
from kmmlu_fast.core.locks import Lock, acquire_lock
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.models.adapters import ADAPTER_CARD as CARD
from kmmlu_fast.models.adapters import LOG, STATE, read_training_log
from kmmlu_fast.models.model import Model
from kmmlu_fast.models.model_files import edge_digest, model_changed_ns
from kmmlu_fast.training.config import FREE_ON_RESUME, TrainConfig
from kmmlu_fast.training.inputs import data_digest

CHECKPOINTS = "checkpoints"  # work in progress and the lock; removed at the end
LOCK = ".lock"


def is_training_finished(config: TrainConfig) -> bool:
    """True if --resume finds a finished adapter. TrainError if the directory cannot be used: adapters are
    never overwritten.
    """
    folder = config.output_dir
    if folder.exists() and not folder.is_dir():
        raise TrainError(f"--output-dir {folder}: is a file; give a directory")
    if not folder.exists() or _is_empty(folder):
        return False
    has_state = (folder / STATE).exists()
    # The card, then PEFT's config, are written last.
    if (folder / CARD).exists() and ((folder / "adapter_config.json").exists() or not has_state):
        if config.resume and has_state:
            settings = {"settings": config.result_settings(), "data_digest": data_digest(config)}
            _refuse_other_settings(folder, settings)
            log_note(f"{folder}: already trained; nothing to resume")
            return True
        raise TrainError(
            f"--output-dir {folder}: holds a finished adapter, which is never overwritten; give another"
            " directory"
        )
    if not has_state:
        raise TrainError(
            f"--output-dir {folder}: is not empty and holds no training of this tool; give a new directory"
        )
    if not config.resume:
        raise TrainError(
            f"--output-dir {folder}: holds an unfinished training; give --resume to continue it, or another"
            " directory"
        )
    return False


def _is_empty(folder: Path) -> bool:
    """True if there is at most what a kill before the first file leaves: a lock in the checkpoints folder."""
    for path in folder.iterdir():
        if path.name == CHECKPOINTS and path.is_dir():
            others = [inner.name for inner in path.iterdir() if not inner.name.endswith(PARTIAL)]
            if any(not name.startswith(LOCK) for name in others):
                return False
        elif not path.name.endswith(PARTIAL):
            return False
    return True


def lock_output_directory(config: TrainConfig) -> Lock:
    """The directory's lock: two trainings would overwrite each other's checkpoints. The end of the process
    releases it.
    """
    work = config.output_dir / CHECKPOINTS
    try:
        work.mkdir(parents=True, exist_ok=True)
        return acquire_lock(
            work / LOCK,
            TrainError(f"--output-dir {config.output_dir}: another process is training there; wait for it"),
        )
    except OSError as error:
        raise _not_writable(config, error) from error


def _not_writable(config: TrainConfig, error: OSError) -> TrainError:
    return TrainError(
        f"--output-dir {config.output_dir}: cannot be written ({error.strerror}); give another directory"
    )


def chosen_micro_batch(config: TrainConfig) -> int | None:
    """--micro-batch, else that of the run to resume, whatever memory is free now; None if neither is set."""
    state = config.output_dir / STATE
    if config.micro_batch or not (config.resume and state.exists()):
        return config.micro_batch
    size = read_json(state, TrainError).get("micro_batch")
    if type(size) is not int or size < 1:
        raise TrainError(
            f"{state}: micro_batch is {bounded_repr(size)}; the file is damaged: train into a new directory"
        )
    return size


def resumed_model_digest(config: TrainConfig, model: Model) -> str:
    """The model's digest; of a training that began when digests covered only the ends of files, the one it
    recorded, if no file of the model has changed since.
    """
    state, folder = config.output_dir / STATE, Path(model.path)
    if not (config.resume and state.exists() and folder.is_dir()):
        return model.digest
    recorded = read_json(state, TrainError).get("model_digest")
    if recorded == edge_digest(folder) and model_changed_ns(folder) < state.stat().st_mtime_ns:
        return str(recorded)
    return model.digest


@contextlib.contextmanager
def claimed_output_directory(
    config: TrainConfig, identity: dict[str, Any], micro_batch: int
) -> Iterator[None]:
    """The directory belongs to this training, unless the block ends by an error before the first step: then
    it is as if nobody had begun, and a mended command may use it."""
    is_new = claim_output_directory(config, identity, micro_batch)
    try:
        yield
    except BaseException:
        if is_new:
            _give_back(config.output_dir)
        raise


def claim_output_directory(config: TrainConfig, identity: dict[str, Any], micro_batch: int) -> bool:
    """Write this training's state into the directory, or check that a resumed training has the same settings
    and data. Returns whether the training is new.
    """
    state = config.output_dir / STATE
    is_new = not state.exists()
    recorded: dict[str, Any] = {} if is_new else read_json(state, TrainError)
    if not is_new:
        _refuse_other_settings(config.output_dir, identity)
        if recorded.get("micro_batch") == micro_batch:
            return False
    elif config.resume:
        log_note(f"--resume: {config.output_dir} holds no training yet; starting from the beginning")
    try:
        write_json_atomically(state, {**identity, **recorded, "micro_batch": micro_batch})
    except OSError as error:
        raise _not_writable(config, error) from error
    return is_new


def _give_back(folder: Path) -> None:
    """Remove what a training without a step has written; the lock stays, as in any empty directory."""
    work = folder / CHECKPOINTS
    with contextlib.suppress(OSError):
        if any(record["kind"] == "step" for record in read_training_log(folder / LOG)):
            return
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.startswith(LOCK):
                path.unlink()
        (folder / LOG).unlink(missing_ok=True)
        (folder / STATE).unlink()


def _without(settings: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _refuse_other_settings(folder: Path, identity: dict[str, Any]) -> None:
    state = read_json(folder / STATE, TrainError)
    differences: list[str] = []
    for part, here in identity.items():
        there = state.get(part)
        if isinstance(here, dict) and isinstance(there, dict):
            free = FREE_ON_RESUME if part == "settings" else frozenset[str]()
            differences += describe_differences(_without(there, free), _without(here, free))
        else:
            differences += describe_differences({part: there}, {part: here})
    if differences:
        raise TrainError(
            f"--resume: {folder} was trained with other settings: {', '.join(differences)}; use the same"
            " settings, or another --output-dir"
        )
