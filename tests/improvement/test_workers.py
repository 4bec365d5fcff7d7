"""Ray places trainings side by side; errors come back as they were raised."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.improvement import workers
from kmmlu_fast.improvement.workers import ChildWorkers, RayWorkers, trained_adapter_path


def train_nothing(settings: dict[str, Any]) -> Path:
    folder = Path(settings["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    if settings.get("fault"):
        raise TrainError("no memory")
    if not (folder / "lost").exists() and settings.get("lost"):
        (folder / "lost").touch()
        os._exit(1)  # the machine went away
    (folder / "done").write_text(str(settings["seed"]))
    return folder


@pytest.mark.engine
@pytest.mark.alone
def test_two_ray_workers_train_all_pieces_and_repeat_a_lost_one(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pieces = [{"output_dir": tmp_path / str(n), "seed": n, "lost": n == 1} for n in range(3)]
    done = {trained.piece: trained.path for trained in RayWorkers(None, train_nothing).train(pieces)}
    assert done == {n: tmp_path / str(n) for n in range(3)}
    assert [(tmp_path / str(n) / "done").read_text() for n in range(3)] == ["0", "1", "2"]
    (failed,) = RayWorkers(None, train_nothing).train(
        [{"output_dir": tmp_path / "f", "seed": 1, "fault": True}]
    )
    assert failed.path is None and isinstance(failed.error, TrainError) and "no memory" in str(failed.error)


def test_a_directory_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="holds no adapter and no checkpoint"):
        trained_adapter_path(tmp_path)


def test_a_child_that_fails_is_told_and_the_next_piece_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "train_in_child", train_nothing)
    pieces = [
        {"output_dir": tmp_path / "f", "seed": 1, "fault": True},
        {"output_dir": tmp_path / "g", "seed": 2},
    ]
    failed, done = ChildWorkers().train(pieces)
    assert (failed.piece, failed.path) == (0, None) and "no memory" in str(failed.error)
    assert (done.piece, done.path, done.error) == (1, tmp_path / "g", None)
