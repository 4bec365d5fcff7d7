"""The scripts in examples/ with checkpoints or a tracker, each in a process of its own: what was logged is
what ``eval`` says of the saved checkpoints, and what the tracker kept.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny

from kmmlu_fast.runs.run import Run

ROOT = Path(__file__).parents[2]
STEPS = [0, 4, 8, 12]
# Checkpoints, and a rate at which answers change without a collapse; all 180 train questions are asked.
CHECKPOINTS = {
    "max_steps=12,": "max_steps=12, save_steps=4, save_only_model=True, learning_rate=5e-3,",
    "import torch\n": "import torch\n\ntorch.manual_seed(0)\n",  # LoRA draws its weights
    "questions=60": "questions=180",
}
LOOKS = """
import json
looks = [[look.step, look.questions, look.accuracy, look.letter_share] for look in watching.looks]
print(json.dumps({"looks": looks, "dtype": str(trainer.model.dtype).removeprefix("torch.")}))
"""

pytestmark = [pytest.mark.engine, pytest.mark.alone]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_model(tmp_path_factory.mktemp("scripts") / "model")


def run_edited_example(
    name: str, edits: dict[str, str], tail: str, model_path: Path, folder: Path, **environment: str
) -> Any:
    """Run an example with some of its text replaced and more lines at its end. Returns the JSON it prints
    last.
    """
    source = (ROOT / "examples" / name).read_text(encoding="utf-8")
    for old, new in edits.items():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    script = folder / name
    script.write_text(source + tail, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(model_path), str(folder / "out")],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) >= 3 and lines[0].startswith("step 0: accuracy")
    assert "valid over all looks" in lines[-1]
    return json.loads(done.stdout.splitlines()[-1])


def count_differences(look: list[Any], run: Run) -> int:
    """Answers by which a look's accuracy or letters differ from a run's, beyond its near ties."""
    _, questions, accuracy, shares = look
    assert questions == len(run.frame)
    counts = Counter(run.frame["prediction"])
    differences = [accuracy - run.micro, *(shares[letter] - counts[letter] / questions for letter in shares)]
    near_ties = int((run.frame["margin"] < 1e-2).sum())
    return max(round(max(map(abs, differences)) * questions) - near_ties, 0)


@pytest.mark.parametrize(
    ("name", "edits"),
    [
        ("watch_trl.py", {', stop_when="worse"': ""}),
        # In bfloat16, which it would take, eval's rounding of base plus adapter flips more than near ties.
        ("watch_unsloth.py", {"load_in_4bit=False": "load_in_4bit=False, dtype=torch.float32"}),
    ],
)
def test_the_curve_equals_eval_of_every_checkpoint(
    name: str, edits: dict[str, str], model_path: Path, tmp_path: Path
) -> None:
    from kmmlu_fast import evaluate

    printed = run_edited_example(name, CHECKPOINTS | edits, LOOKS, model_path, tmp_path)
    runs = evaluate(
        model=str(model_path),
        adapter=[str(tmp_path / "out" / f"checkpoint-{step}") for step in STEPS[1:]],
        dataset="sample",
        split="train",
        engine="transformers",
        dtype=printed["dtype"],
        output_dir=tmp_path / "runs",
    )
    assert [step for step, *_ in printed["looks"]] == STEPS
    curve = [share for *_, share in printed["looks"]]
    assert all(one != other for one, other in itertools.pairwise(curve))  # it learns
    for look, run in zip(printed["looks"], runs, strict=True):
        assert count_differences(look, run) == 0, look
    # and no look that of another checkpoint
    assert all(
        count_differences(look, run) > 0 for look, run in zip(printed["looks"][1:], runs, strict=False)
    )


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_keeps_the_curve_without_a_network(model_path: Path, tmp_path: Path) -> None:
    tail = """
import json
from trackio.sqlite_storage import SQLiteStorage
(run,) = SQLiteStorage.get_runs("mine")
looks = [[look.step, look.log_entry("kmmlu")] for look in watching.looks]
print(json.dumps({"looks": looks, "kept": SQLiteStorage.get_logs("mine", run)}))
"""
    edits = {'report_to="none"': 'report_to="trackio", project="mine"', "every=4": "every=6"}
    offline = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    printed = run_edited_example("watch_trl.py", edits, tail, model_path, tmp_path, **offline)
    assert [step for step, _ in printed["looks"]] == [0, 6, 12]
    kept = [entry for entry in printed["kept"] if any(name.endswith("kmmlu/accuracy") for name in entry)]
    assert len(kept) == 3
    for (step, entry), row in zip(printed["looks"], kept, strict=True):
        assert row["train/global_step"] == step
        for name, value in entry.items():
            assert row[f"train/{name}"] == pytest.approx(value)
