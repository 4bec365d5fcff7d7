"""A search for real: Unsloth trains a tiny model, transformers scores it; killed once, it continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from made_searches import make_dataset

pytest.importorskip("optuna", reason="the extra [improve] is not installed")
pytestmark = pytest.mark.engine

RECIPES = """
common: {load_in_4bit: false, num_train_epochs: 2, effective_batch: 8, max_seq_length: 512, size: 16}
recipes: [{name: slow, learning_rate: 1.0e-5}, {name: fast, learning_rate: 1.0e-2}]
"""


def test_a_killed_search_ends_with_a_confirmed_winner(tmp_path: Path) -> None:
    tiny.make_tiny_model(tmp_path / "model")
    data = make_dataset(tmp_path / "kmmlu", rows=6)
    (tmp_path / "recipes.yaml").write_text(RECIPES)
    command = [sys.executable, "-m", "kmmlu_fast.improve", "--model", str(tmp_path / "model")]
    command += [
        "--dataset",
        str(data),
        "--recipes",
        str(tmp_path / "recipes.yaml"),
        "--engine",
        "transformers",
    ]
    command += ["--output-dir", str(tmp_path / "out"), "--selection", "2", "--weakness", "1", "--seeds", "1"]
    command += ["--fewshot-rival", "1", "--dtype", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    state = tmp_path / "out" / "state.json"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        while not state.exists() and first.poll() is None:
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
    trained = set(json.loads(state.read_text())["trained"])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not any(
        f"training {key.rpartition('-r')[0]}" in done.stderr and key.endswith("-r0") for key in trained
    )
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["winner"] in done.stdout and result["confirmation"]["questions"] > 0
    assert result["confirmation"]["rival"] is not None
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert (Path(result["adapters"][f"{result['winner']}-s0"]) / "adapter_model.safetensors").exists()
