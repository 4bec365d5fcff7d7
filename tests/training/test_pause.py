"""``--stop-after``: a training with a pause is the training without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from kmmlu_fast.data import alpaca, dataset
from kmmlu_fast.models.adapters import read_training_log
from kmmlu_fast.training.arguments import OptimiserSteps

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def train(folder: Path, output: str, *more: str) -> str:
    command = [sys.executable, "-m", "kmmlu_fast.train", "--data", str(folder / "rows.jsonl")]
    command += ["--model", str(folder / "model"), "--output-dir", str(folder / output), "--dataset", "sample"]
    command += ["--held-out", "0", "--keep", "last", "--no-load-in-4bit", "--effective-batch", "4"]
    command += ["--micro-batch", "4", "--num-train-epochs", "2", "--learning-rate", "1e-3"]
    # Dropout and noise: what is drawn after the pause must be what would have been drawn without it.
    command += ["--lora-dropout", "0.1", "--neftune-noise-alpha", "5"]
    command += ["--lr-scheduler-type", "warmup_stable_decay", *more]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_pause_step_is_a_share_of_all_steps() -> None:
    steps = OptimiserSteps([1] * 12)
    assert (steps.pause_step(0.5), steps.pause_step(0.01), steps.pause_step(None)) == (6, 1, None)


@pytest.mark.engine
@pytest.mark.alone
def test_a_paused_training_continues_to_the_same_adapter(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    tiny.make_tiny_model(tmp_path / "model")
    questions = dataset.load_questions("sample", "train")[:24]
    rows = [alpaca.SftRow(question=question, strategy="uniform") for question in questions]
    alpaca.write_sft_rows(tmp_path / "rows.jsonl", rows)
    train(tmp_path, "whole")
    said = train(tmp_path, "paused", "--stop-after", "0.5")
    assert "paused after step 6 of 12" in said
    checkpoint = tmp_path / "paused" / "checkpoints" / "checkpoint-6"
    assert (checkpoint / "adapter_config.json").exists()
    before = (checkpoint / "adapter_model.safetensors").stat().st_mtime_ns
    assert "paused after step 6" in train(tmp_path, "paused", "--stop-after", "0.5", "--resume")
    assert (checkpoint / "adapter_model.safetensors").stat().st_mtime_ns == before  # nothing trained twice
    train(tmp_path, "paused", "--resume")
    whole = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    paused = load_file(tmp_path / "paused" / "adapter_model.safetensors")
    assert whole.keys() == paused.keys()
    assert all((whole[name] == paused[name]).all() for name in whole)
    rates = [step["learning_rate"] for step in read_training_log(tmp_path / "whole" / "train_log.jsonl")]
    assert rates[5] == rates[8] > rates[-1]  # stable until the last fifth
