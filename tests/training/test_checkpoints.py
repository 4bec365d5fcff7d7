"""Checkpoints on --resume: a damaged one is never continued from in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.training.checkpoints import COMPLETE, last_checkpoint, mark_complete, require_disk_room


def make(work_dir: Path, step: int) -> Path:
    checkpoint = work_dir / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"state" * 1000)
    mark_complete(work_dir, step)
    return checkpoint


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert last_checkpoint(tmp_path) is None
    first, second = make(tmp_path, 5), make(tmp_path, 10)
    assert last_checkpoint(tmp_path) == second
    with (second / "optimizer.pt").open("r+b") as file:
        file.seek(2500)
        file.write(b"X")
    with caplog.at_level("INFO", logger="kmmlu_fast"):
        assert last_checkpoint(tmp_path) == first
    assert "checkpoint-10: not continued from, optimizer.pt is damaged" in caplog.text


@pytest.mark.parametrize("damage", ["file gone", "cut", "record", "digests"])
def test_only_damaged_checkpoints_are_an_error(tmp_path: Path, damage: str) -> None:
    checkpoint = make(tmp_path, 5)
    if damage == "file gone":
        (checkpoint / "optimizer.pt").unlink()
    elif damage == "cut":
        (checkpoint / "optimizer.pt").write_bytes(b"st")
    else:
        (checkpoint / COMPLETE).write_text("{" if damage == "record" else '{"sha256": 5}')
    with pytest.raises(TrainError, match=r"--resume: .*checkpoint-5: .*no other checkpoint is whole"):
        last_checkpoint(tmp_path)


def test_checkpoints_of_before_are_taken_as_they_are(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 5)
    (checkpoint / COMPLETE).write_text(json.dumps({"step": 5}))
    assert last_checkpoint(tmp_path) == checkpoint


def test_a_disk_without_room_for_a_checkpoint_is_told_before_step_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=15 << 20))
    require_disk_room(tmp_path, trainable=1 << 20, optimiser_bytes=7 << 20)  # 4 + 4 + 7 MiB
    with pytest.raises(TrainError, match=r"need 15\.1 MiB, its disk has 15\.0 MiB free; .*smaller --r"):
        require_disk_room(tmp_path, trainable=1 << 20, optimiser_bytes=(7 << 20) + 100_000)
