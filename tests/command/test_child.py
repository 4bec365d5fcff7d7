"""A verb in a child process: its fault is the parent's error, and it ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmmlu_fast.command.child import find_kill_signal, run_module, run_verb
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.contamination.config import LeakageConfig
from kmmlu_fast.core.errors import DataError

ROOT = Path(__file__).parents[2]


def test_the_childs_fault_is_raised_in_its_words_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    config = build_config(LeakageConfig, train_file=tmp_path / "none.jsonl", dataset="sample")
    with pytest.raises(DataError, match=r"none\.jsonl"):
        run_verb("leakage", config, DataError)
    assert "none.jsonl" not in caplog.text


def test_an_error_that_is_not_the_last_word_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    said = "import os; os.write(2, b'error: first\\nsecond\\n'); os._exit(2)"
    with pytest.raises(DataError, match="second"):
        run_module(["timeit", "-n", "1", "-r", "1", said], DataError)
    assert [record.getMessage() for record in caplog.records][:2] == ["error: first", "second"]


def fail_in_child(statement: str) -> DataError:
    with pytest.raises(DataError) as caught:
        run_module(["timeit", "-n", "1", "-r", "1", f"import os, signal; {statement}"], DataError)
    return caught.value


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGTERM)", signal.SIGTERM),
        ("os._exit(137)", signal.SIGKILL),  # as the guard of a verb reports it
        ("os._exit(143)", signal.SIGTERM),
    ],
)
def test_a_child_that_was_ended_from_outside_is_told_apart(statement: str, number: int) -> None:
    error = fail_in_child(statement)
    assert find_kill_signal(error) == number
    assert str(error) == f"timeit was ended by {signal.Signals(number).name}"


@pytest.mark.parametrize("statement", ["os._exit(2)", "os._exit(139)", "os.abort()"])
def test_a_child_that_fails_or_crashes_was_not_ended_from_outside(statement: str) -> None:
    error = fail_in_child(statement)
    assert find_kill_signal(error) == 0 and "exit code" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a child that its parent ended")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\nfrom kmmlu_fast.command.child import _end_with_parent\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " preexec_fn=_end_with_parent)\nprint(child.pid, flush=True)\nchild.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived its parent")
