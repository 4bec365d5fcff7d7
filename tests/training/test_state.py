"""An output directory: claimed late, given back if no step was made, and what --resume may change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.state import (
    CHECKPOINTS,
    chosen_micro_batch,
    claim_output_directory,
    claimed_output_directory,
    is_training_finished,
    lock_output_directory,
)


def make_config(folder: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(data=["rows.jsonl"], output_dir=folder, **settings)


def identity(config: TrainConfig) -> dict[str, Any]:
    return {"settings": config.result_settings(), "data_digest": "x"}


def claim(folder: Path, planned: int = 8, **settings: Any) -> bool:
    config = make_config(folder, **settings)
    return claim_output_directory(config, identity(config), planned)


def test_resume_takes_what_changes_no_weight(tmp_path: Path) -> None:
    assert claim(tmp_path, planned=8)
    changes = {"micro_batch": 2, "measure_every": 5, "save_every": 7, "early_stopping": 3}
    assert not claim(tmp_path, 2, resume=True, **changes)
    assert json.loads((tmp_path / "training.json").read_text())["micro_batch"] == 2
    # and what the first training was begun with is still what later ones are compared with
    with pytest.raises(TrainError, match="effective_batch"):
        claim(tmp_path, resume=True, effective_batch=8)
    with pytest.raises(TrainError, match="learning_rate"):
        claim(tmp_path, resume=True, learning_rate=1e-3)


def test_the_micro_batch_of_the_flags_wins_over_the_recorded_one(tmp_path: Path) -> None:
    claim(tmp_path, planned=8)
    assert chosen_micro_batch(make_config(tmp_path, resume=True)) == 8
    assert chosen_micro_batch(make_config(tmp_path, resume=True, micro_batch=2)) == 2
    assert chosen_micro_batch(make_config(tmp_path / "new", resume=True)) is None


def test_a_refusal_before_the_first_step_gives_the_directory_back(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    config = make_config(folder)
    with lock_output_directory(config):
        with (
            pytest.raises(TrainError, match="late"),
            claimed_output_directory(config, identity(config), 8),
        ):
            (folder / "train_log.jsonl").write_text('{"kind": "held_out", "step": 0}\n')
            (folder / CHECKPOINTS / "best-0").mkdir()
            assert (folder / "training.json").exists()
            raise TrainError("late")
        assert sorted(path.name for path in folder.iterdir()) == [CHECKPOINTS]
    mended = make_config(folder, learning_rate=1e-3)
    assert not is_training_finished(mended)  # it may be used without --resume
    assert claim_output_directory(mended, identity(mended), 8)


@pytest.mark.parametrize("error", [TrainError("x"), KeyboardInterrupt()])
def test_a_training_that_made_a_step_keeps_its_directory(tmp_path: Path, error: BaseException) -> None:
    config = make_config(tmp_path)
    with lock_output_directory(config):
        with pytest.raises(type(error)), claimed_output_directory(config, identity(config), 8):
            (tmp_path / "train_log.jsonl").write_text('{"kind": "step", "step": 1}\n')
            raise error
        assert (tmp_path / "training.json").exists() and (tmp_path / "train_log.jsonl").exists()


def test_a_resumed_training_that_fails_at_once_keeps_its_directory(tmp_path: Path) -> None:
    claim(tmp_path)
    config = make_config(tmp_path, resume=True)
    with pytest.raises(TrainError), claimed_output_directory(config, identity(config), 8):
        raise TrainError("x")
    assert (tmp_path / "training.json").exists()
