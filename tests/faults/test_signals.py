"""SIGTERM and SIGHUP, as schedulers and spot machines send them, on a real vLLM with the demo model: what was
answered is kept, one line is said, and the same command goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.runs.store import load_run_directory

pytestmark = [pytest.mark.engine, pytest.mark.alone]
ROOT = Path(__file__).parents[2]
SUBJECTS = "Accounting,Biology,Chemistry,Economics,Health,Law,Math,Taxation"  # 4 questions each in the sample
QUESTIONS = 32


VERB = """
import sys
from kmmlu_fast.command.crash_guard import run_with_crash_guard

def verb():  # imported in the watched process, as the real door does it
    from kmmlu_fast.eval import run_eval_command
    from kmmlu_fast.runs import store
    store.FLUSH_SEC = 0.2
    return run_eval_command()

sys.exit(run_with_crash_guard(verb))
"""


def command(folder: Path) -> list[str]:
    argv = ["--model", "demo", "--dataset", "sample", "--subjects", SUBJECTS, "--max-num-seqs", "1"]
    return [sys.executable, "-c", VERB, *argv, "--output-dir", str(folder)]


def answered(folder: Path) -> pl.DataFrame:
    parts = sorted(folder.glob("*/predictions/part-*.parquet"))
    return pl.concat([pl.read_parquet(part) for part in parts]) if parts else pl.DataFrame()


def stopped(folder: Path, how: signal.Signals, before: int) -> tuple[int, str]:
    """Start the command, send it the signal when it has answered more than before; exit code and stderr."""
    said = folder.parent / f"stderr-{how.name}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with said.open("w") as file:
        process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=file, env=environment)
        deadline = time.monotonic() + 500
        while len(list(folder.glob("*/predictions/part-*.parquet"))) <= before:
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.005)
        process.send_signal(how)
        code = process.wait(timeout=200)
    return code, said.read_text()


def test_what_was_answered_is_kept_and_the_same_command_goes_on(tmp_path: Path) -> None:
    folder, kept = tmp_path / "runs", pl.DataFrame()
    for how in (signal.SIGTERM, signal.SIGHUP):
        parts = len(list(folder.glob("*/predictions/part-*.parquet")))
        code, said = stopped(folder, how, parts)
        assert code == {signal.SIGTERM: 143, signal.SIGHUP: 129}[how], said
        lines = [line for line in said.splitlines() if line.startswith(("stopped", "error", "Traceback"))]
        assert lines == [
            f"stopped by {how.name}: what was answered is kept; run the same command again to continue"
        ]
        found = answered(folder)
        assert len(kept) < len(found) < QUESTIONS and not list(folder.rglob("*.partial"))
        assert found["question_id"].n_unique() == len(found)
        assert found.head(len(kept)).equals(kept) if len(kept) else True
        kept = found
    done = subprocess.run(
        command(folder),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} of {QUESTIONS} questions were answered before" in done.stderr
    [path] = [path for path in folder.iterdir() if path.is_dir()]
    run = load_run_directory(path)
    assert run.frame["question_id"].n_unique() == len(run.frame) == QUESTIONS
    assert run.metrics.to_json()["speed"]["questions"] == QUESTIONS - len(kept)
    untouched = run.frame.join(kept, on="question_id", how="semi").sort("question_id")
    assert untouched.equals(kept.select(run.frame.columns).sort("question_id"))
