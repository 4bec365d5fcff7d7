"""A search for real: Unsloth trains a tiny model, transformers scores it; killed once, it continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import made_searches
import pytest
import tiny
from made_searches import make_dataset

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.improvement.search import run_search
from kmmlu_fast.improvement.workers import ChildWorkers, TrainedPiece
from kmmlu_fast.runs.comparison_log import read_comparison_log
from kmmlu_fast.runs.run import Run

pytest.importorskip("optuna", reason="the extra [improve] is not installed")
pytestmark = [pytest.mark.engine, pytest.mark.alone]

RECIPES = """
common: {load_in_4bit: false, num_train_epochs: 2, effective_batch: 8, max_seq_length: 512, size: 16}
recipes: [{name: slow, learning_rate: 1.0e-5}, {name: fast, learning_rate: 1.0e-2}]
"""


class MadeAdapters(ChildWorkers):
    """Evaluates for real, in this process; a training writes a random adapter of its recipe and seed."""

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        return run_evaluation(build_config(EvalConfig, **settings))

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        for place, settings in enumerate(pieces):
            folder = Path(settings["output_dir"])
            if not (folder / "adapter_config.json").exists():
                seed = settings["seed"] + int(settings["learning_rate"] * 1e6)
                tiny.make_tiny_adapter(settings["model"], folder, seed=seed, scale=3.0)
            yield TrainedPiece(place, folder, 1.0)


@pytest.mark.usefixtures("one_thread")
def test_real_adapters_of_two_seeds_are_scored_together_and_confirmed(tmp_path: Path) -> None:
    """That test labels choose nothing is shown without an engine, in ``test_search``."""
    model = tiny.make_tiny_model(tmp_path / "model")
    recipes = "common: {size: 16, load_in_4bit: false}\ngrid: {learning_rate: [1.0e-5, 2.0e-5, 3.0e-5]}\n"
    config = made_searches.make_config(
        tmp_path,
        make_dataset(tmp_path / "kmmlu", rows=3),
        recipes,
        model=str(model),
        engine="transformers",
        dtype="float32",
        selection=1,
        weakness=1,
        fewshot_rival=1,
        max_questions=30,
    )
    result = run_search(config, MadeAdapters())
    answers = {name: seeds[0].tobytes() for name, seeds in result.rungs[0].recipes.items()}
    assert len(answers) == len(set(answers.values())) == 3  # each by its own adapter
    assert result.confirmation.questions >= 1 and result.confirmation.rival is not None
    assert len(result.confirmation.gains) == 2 and result.confirmation.effect is not None
    assert [entry.name for entry in read_comparison_log(Path(result.confirmation.runs[0]))] == [
        *result.adapters
    ]


@pytest.mark.skipif(
    os.environ.get("KMMLU_FAST_SLOW") != "1", reason="two minutes of Unsloth: KMMLU_FAST_SLOW=1 runs it"
)
def test_a_killed_search_ends_with_a_confirmed_winner(tmp_path: Path) -> None:
    tiny.make_tiny_model(tmp_path / "model")
    data = make_dataset(tmp_path / "kmmlu", rows=3)
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
    command += ["--output-dir", str(tmp_path / "out"), "--selection", "1", "--weakness", "1", "--seeds", "1"]
    command += ["--fewshot-rival", "0", "--max-questions", "30", "--dtype", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    state = tmp_path / "out" / "state.json"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        while first.poll() is None and not (state.exists() and '"trained"' in state.read_text()):
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
    trained = set(json.loads(state.read_text())["trained"])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert trained == {"slow-s0-r0"}
    first_rung = [line for line in done.stderr.splitlines() if "rung 1 of 2: training" in line]
    assert len(first_rung) == 1 and "slow-s0" not in first_rung[0]  # nothing trained twice
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["winner"] in done.stdout and result["confirmation"]["questions"] > 0
    assert result["confirmation"]["rival"] is None  # asked for in the test above
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert (Path(result["adapters"][f"{result['winner']}-s0"]) / "adapter_model.safetensors").exists()
