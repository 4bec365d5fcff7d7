"""What training writes on its way: checkpoints, the best adapters so far, the adapter that is kept.

In: training's working folder, a model that can save itself, measurements. Out: folders that count only once
they are complete, so that a kill at any moment is safe. Knows nothing of Unsloth, TRL or settings.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import hash_file
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import read_json, write_json_atomically
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.training.held_out import HeldOutMeasurement
from kmmlu_fast.training.monitor import Monitor

_WEIGHT_BYTES = 4
COMPLETE = "complete.json"  # written last: a folder without it was interrupted


def require_disk_room(output_dir: Path, trainable: int, optimiser_bytes: int) -> None:
    """TrainError if the disk cannot hold what every training writes: a checkpoint (weights in float32 and the
    optimiser's state) and the adapter. Several checkpoints take more.
    """
    needed = 2 * trainable * _WEIGHT_BYTES + optimiser_bytes
    free = shutil.disk_usage(output_dir).free
    if free < needed:
        raise TrainError(
            f"--output-dir {output_dir}: a checkpoint and the adapter need {needed / 2**20:,.1f} MiB, its"
            f" disk has {free / 2**20:,.1f} MiB free; free space, give a smaller --r, or write elsewhere"
        )


def last_checkpoint(work_dir: Path) -> Path | None:
    """The newest complete checkpoint whose files are as they were written; None if there is none.

    TrainError if there are only damaged ones: starting over would not be what was asked for.
    """
    complete = [path for path in work_dir.glob("checkpoint-*") if (path / COMPLETE).exists()]
    damaged = ""
    for checkpoint in sorted(complete, key=checkpoint_step, reverse=True):
        problem = _checkpoint_problem(checkpoint)
        if not problem:
            return checkpoint
        damaged = damaged or f"{checkpoint}: {problem}"
        log_note(f"{checkpoint}: not continued from, {problem}")
    if damaged:
        raise TrainError(f"--resume: {damaged}, and no other checkpoint is whole; train into a new directory")
    return None


def _checkpoint_problem(checkpoint: Path) -> str:
    """What is damaged, "" if nothing is. Checkpoints from before digests were recorded are taken as whole."""
    try:
        digests = read_json(checkpoint / COMPLETE, TrainError).get("sha256", {})
        if not isinstance(digests, dict):
            return f"{COMPLETE} is damaged"
        for name, digest in digests.items():
            if hash_file(checkpoint / name) != digest:
                return f"{name} is damaged"
    except (OSError, TrainError, ValueError) as error:
        return f"cannot be read ({one_line(str(error), 200)})"
    return ""


def checkpoint_step(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rsplit("-", 1)[-1])


def mark_complete(work_dir: Path, step: int) -> None:
    """Mark the checkpoint of a step as complete."""
    checkpoint = work_dir / f"checkpoint-{step}"
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != COMPLETE)
    digests = {path.relative_to(checkpoint).as_posix(): hash_file(path) for path in files}
    write_json_atomically(checkpoint / COMPLETE, {"step": step, "sha256": digests})


def save_best(model: Any, work_dir: Path, measurement: HeldOutMeasurement) -> None:
    """Save the current adapter as the best. Earlier ones stay until no checkpoint needs them."""
    folder = best_folder(work_dir, measurement.step)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial))
    write_json_atomically(partial / COMPLETE, asdict(measurement))
    # A run that was killed before its next checkpoint may have left this folder.
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def best_folder(work_dir: Path, step: int) -> Path:
    """Where the adapter measured at ``step`` is. One folder per step: a resumed training goes back to its
    checkpoint, and needs the adapter that was the best *then*.
    """
    return work_dir / f"best-{step}"


def drop_older_adapters(work_dir: Path, step: int) -> None:
    """Remove the best adapters from before ``step``."""
    for folder in work_dir.glob("best-*"):
        number = folder.name.removeprefix("best-")
        if number.isdigit() and int(number) < step:
            shutil.rmtree(folder, ignore_errors=True)


def keep_adapter(model: Any, work_dir: Path, monitor: Monitor, keep: str) -> HeldOutMeasurement | None:
    """Write the best adapter by the held-out rows, or the last, to ``work_dir/adapter``."""
    adapter = work_dir / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    if keep != "last" and monitor.best is not None:
        best = best_folder(work_dir, monitor.best.step)
        if not (best / COMPLETE).exists():
            raise TrainError(
                f"{best}: the log names it as the best adapter, but it is gone; train into a new directory"
            )
        shutil.copytree(best, adapter)
        (adapter / COMPLETE).unlink()
        return monitor.best
    model.save_pretrained(str(adapter))
    return monitor.last
