"""The scripts in examples/, run on a tiny model as their first lines say; those that
tests/integrations/test_watch_scripts.py runs with checkpoints and a tracker are not run again here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parents[2]
RUN_ELSEWHERE = {"watch_trl.py", "watch_unsloth.py"}
EXAMPLES = sorted({path.name for path in (ROOT / "examples").glob("*.py")} - RUN_ELSEWHERE)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_model(tmp_path_factory.mktemp("examples") / "model")


@pytest.mark.parametrize("script", EXAMPLES)
def test_example_runs_and_prints_the_curve(script: str, model_path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), str(model_path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) >= 3 and lines[0].startswith("step 0: accuracy")
    assert "valid over all looks" in lines[-1]
