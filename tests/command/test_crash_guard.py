"""A verb that dies, for real: processes are started, crash, are killed, are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmmlu_fast.command.crash_guard import CrashFrame, explain_crash, parse_crash_frames, run_with_crash_guard

ROOT = Path(__file__).resolve().parents[2]
# A library that crashes when it is called, installed like any other.
LIBRARY = """
import os, signal, sys

def kernel(number):
    os.kill(os.getpid(), number)
    signal.pause()

def read_nothing():
    import ctypes
    ctypes.string_at(0)
"""
VERB = """
import os, signal, sys, time
from kmmlu_fast.command.crash_guard import run_with_crash_guard

def main():
    word = sys.argv[1]
    if word.startswith("SIG"):
        import madelib
        madelib.kernel(getattr(signal, word))
    if word == "null":
        import madelib
        madelib.read_nothing()
    if word == "exit":
        sys.exit(3)
    if word == "raise":
        raise RuntimeError("as it is")
    if word == "sleep":
        try:
            print(os.getpid(), flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            return 130
    if word in ("ends", "ends by itself"):
        import atexit, threading
        class Object:
            def __del__(self):
                os.write(1, b" taken apart")
        sys.modules["held"] = Object()
        atexit.register(print, "atexit", end="")
        threading.Thread(target=lambda: (time.sleep(0.3), print("thread ", end=""))).start()
        sys.exit("a text" if word == "ends by itself" else 5)
    if word == "echo":
        print(sys.stdin.readline().strip(), os.getpgid(0) == os.getpgid(os.getppid()), os.getcwd())
    return 7

if __name__ == "__main__":
    sys.stdout.write("before ")
    sys.exit(run_with_crash_guard(main))
"""


@pytest.fixture(scope="module")
def verb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verb")
    packages = folder / "site-packages" / "madelib"
    packages.mkdir(parents=True)
    (packages / "__init__.py").write_text(LIBRARY)
    (folder / "verb.py").write_text(VERB)
    return folder


def start(verb: Path, word: str, **variables: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(verb / "site-packages")])
    return subprocess.Popen(
        [sys.executable, str(verb / "verb.py"), word],
        env={**os.environ, "PYTHONPATH": path, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run(verb: Path, word: str, given: str = "", **variables: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    process = start(verb, word, **variables)
    out, err = process.communicate(given, timeout=60)
    return process.returncode, out, err


def test_the_end_waits_for_threads_and_atexit_and_takes_nothing_apart(verb: Path) -> None:
    assert run(verb, "ends") == (5, "before thread atexit", "")


def test_an_end_that_python_tells_is_python_s_own(verb: Path) -> None:
    code, out, err = run(verb, "ends by itself")
    assert (code, out, err) == (1, "before thread atexit taken apart", "a text\n")


@pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE"])
def test_a_crash_is_one_line_with_the_library(verb: Path, name: str) -> None:
    code, _, err = run(verb, name)
    assert code == 128 + getattr(signal, name)
    assert err.count("\n") == 1 and err.startswith("error: madelib ")
    assert f": {name}; " in err and "kmmlu-fast doctor" in err
    assert "in kernel (madelib/__init__.py:5) at `os.kill(os.getpid(), number)`" in err
    assert ("does not have" in err) == (name == "SIGILL")


def test_a_real_null_pointer(verb: Path) -> None:
    code, _, err = run(verb, "null")
    assert code == 128 + signal.SIGSEGV
    assert err.startswith("error: madelib crashed in read_nothing (madelib/__init__.py:10)")


def test_killed_from_outside(verb: Path) -> None:
    code, _, err = run(verb, "SIGKILL")
    assert code == 137
    assert err.count("\n") == 1 and "SIGKILL" in err and "run the same command again" in err


def test_killed_for_memory_is_told_apart() -> None:
    """The kernel counts one kill for memory more than before. None is provoked: it could hit others."""
    script = (
        "import os, signal, sys\n"
        "from kmmlu_fast.command import crash_guard\n"
        "from kmmlu_fast.machine import host\n"
        "host.count_oom_kills = iter([4, 5]).__next__\n"
        "sys.exit(crash_guard.run_with_crash_guard(lambda: os.kill(os.getpid(), signal.SIGKILL)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 137 and "the kernel killed this process for memory" in done.stderr
    text = explain_crash(signal.SIGKILL, [], peak_bytes=3 << 30, starved=True)
    assert (
        "the kernel killed this process for memory" in text and "3.0 GiB" in text and "smaller model" in text
    )


@pytest.mark.parametrize(("word", "code"), [("nothing", 7), ("exit", 3), ("raise", 1)])
def test_an_end_of_its_own_keeps_its_code(verb: Path, word: str, code: int) -> None:
    found, out, err = run(verb, word)
    assert found == code
    assert out == "before "  # once: buffers are not written by both
    assert ("RuntimeError: as it is" in err) == (word == "raise") and not err.startswith("error:")


def test_switched_off_it_is_not_there(verb: Path) -> None:
    assert run(verb, "SIGSEGV", KMMLU_GUARD="0")[0] == -signal.SIGSEGV


def test_input_directory_and_process_group_are_shared(verb: Path) -> None:
    code, out, _ = run(verb, "echo", given="안녕\n")
    assert (code, out) == (7, f"before 안녕 True {Path.cwd()}\n")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def ended(pid: int) -> bool:
    """Whether the process is gone within ten seconds."""
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def sleeping(verb: Path) -> tuple[subprocess.Popen[str], int]:
    process = start(verb, "sleep")
    assert process.stdout is not None
    return process, int(process.stdout.readline().split()[-1])


def test_a_signal_to_the_outer_process_reaches_the_verb(verb: Path) -> None:
    process, inner = sleeping(verb)
    assert inner != process.pid and alive(inner)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "interrupted\n", "")
    assert ended(inner)


def test_termination_ends_both_and_looks_like_termination(verb: Path) -> None:
    process, inner = sleeping(verb)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM and err == ""
    assert ended(inner)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_killing_the_outer_process_leaves_nothing_running(verb: Path) -> None:
    process, inner = sleeping(verb)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert ended(inner)


def test_ctrl_c_in_a_terminal_comes_once(verb: Path) -> None:
    import pty

    path = os.pathsep.join([str(ROOT), str(verb / "site-packages")])
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = path
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execv(sys.executable, [sys.executable, str(verb / "verb.py"), "sleep"])
    seen = b""
    while b"\n" not in seen:
        seen += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    try:
        while chunk := os.read(terminal, 1024):
            seen += chunk
    except OSError:  # Linux: the other end is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert seen.count(b"interrupted") == 1 and b"Traceback" not in seen


def test_called_from_a_process_with_threads_it_stays_in_it() -> None:
    script = (
        "import threading, time, os, sys\n"
        "from kmmlu_fast.command.crash_guard import run_with_crash_guard\n"
        "threading.Thread(target=time.sleep, args=(0.5,), daemon=True).start()\n"
        "here = os.getpid()\n"
        "sys.exit(run_with_crash_guard(lambda: 5 if os.getpid() == here else 6))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 5


def test_doors_load_nothing_native_before_the_fork() -> None:
    script = (
        "import sys, threading\n"
        "import kmmlu_fast.eval, kmmlu_fast.train, kmmlu_fast.sample, kmmlu_fast.cli\n"
        "print([m for m in ('polars', 'numpy', 'torch', 'pydantic', 'transformers') if m in sys.modules])\n"
        "from kmmlu_fast.command import crash_guard; print(crash_guard._can_fork())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["[]", "True"]


WRITTEN = """Fatal Python error: Illegal instruction

Current thread 0x00007f0 (most recent call first):
  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed
  File "/v/lib/python3.11/importlib/__init__.py", line 126 in import_module
  File "/v/lib/python3.11/site-packages/unsloth/import_fixes.py", line 10584 in disable_broken_vllm
  File "/home/me/kmmlu_fast/kmmlu_fast/training/trainer.py", line 40 in load
"""


def test_the_library_is_the_innermost_that_was_installed() -> None:
    where = parse_crash_frames(WRITTEN)
    assert [frame.library for frame in where] == ["", "", "unsloth", "kmmlu_fast"]
    text = explain_crash(signal.SIGILL, where)
    assert text.startswith("unsloth executed an instruction that this CPU does not have")
    assert "in disable_broken_vllm (unsloth/import_fixes.py:10584)" in text


def test_nothing_written_is_said_without_a_place() -> None:
    assert parse_crash_frames("") == []
    assert explain_crash(signal.SIGSEGV, []).startswith("a native library crashed: SIGSEGV; ")
    assert CrashFrame("/usr/lib/python3/dist-packages/x.py", 1, "f").library == "x"


def test_from_python_with_tracing_it_runs_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMMLU_GUARD", "0")
    assert run_with_crash_guard(lambda: os.getpid() % 1 + 4) == 4
