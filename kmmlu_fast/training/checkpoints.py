"""What training leaves on disk on its way: whole checkpoints, the best adapters so far, the one that is kept.

In: the folder that training works in, a model that can save itself, measurements. Out: folders that appear
when they are whole, so that a kill at any moment leaves nothing half-written that is taken for done. Knows
nothing of Unsloth, TRL or settings.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.training.held_out import HeldOutMeasurement
from kmmlu_fast.training.monitor import Monitor

COMPLETE = "complete.json"  # in a checkpoint: written last, so a checkpoint without it was cut by a kill


def last_checkpoint(work_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None if there is none."""
    complete = [path for path in work_dir.glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(complete, key=checkpoint_step, default=None)


def checkpoint_step(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rsplit("-", 1)[-1])


def mark_complete(work_dir: Path, step: int) -> None:
    """Say of the checkpoint of a step that all its files are there."""
    write_json_atomically(work_dir / f"checkpoint-{step}" / COMPLETE, {"step": step})


def save_best(model: Any, work_dir: Path, held: HeldOutMeasurement) -> None:
    """The adapter as it is now, as the best; it appears when it is whole, and earlier ones stay
    until no checkpoint needs them.
    """
    place = best_folder(work_dir, held.step)
    fresh = place.with_name(f"{place.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(str(fresh))
    write_json_atomically(fresh / COMPLETE, asdict(held))
    shutil.rmtree(
        place, ignore_errors=True
    )  # of a pass that was killed before its next checkpoint, and is done again
    fresh.rename(place)


def best_folder(work_dir: Path, step: int) -> Path:
    """Where the adapter of the measurement at ``step`` is: one folder a step, so that a resumed training,
    whose log goes back to its checkpoint, finds the adapter that was the best *then*.
    """
    return work_dir / f"best-{step}"


def drop_older_adapters(work_dir: Path, step: int) -> None:
    """Remove the best adapters of before ``step``."""
    for folder in work_dir.glob("best-*"):
        if folder.name.removeprefix("best-").isdigit() and int(folder.name.removeprefix("best-")) < step:
            shutil.rmtree(folder, ignore_errors=True)


def keep_adapter(model: Any, work_dir: Path, monitor: Monitor, keep: str) -> HeldOutMeasurement | None:
    """Put the adapter that is kept into ``work_dir/adapter``: the best by the held-out rows, or the last."""
    adapter = work_dir / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    if keep != "last" and monitor.best is not None:
        best = best_folder(work_dir, monitor.best.step)
        if not (best / COMPLETE).exists():
            raise TrainError(
                f"{best}: the best adapter is not there any more, though the log names it; train into a new"
                " directory"
            )
        shutil.copytree(best, adapter)
        (adapter / COMPLETE).unlink()
        return monitor.best
    model.save_pretrained(str(adapter))
    return monitor.last
