"""Two machines on one shared folder without file locks: the second is told who writes; a dead one is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kmmlu_fast.core import lock_owner
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.locks import acquire_lock, sweep_lock
from kmmlu_fast.core.partials import partial_name

IN_USE = RunError("runs/x: another process is writing it; wait for it")
HOLDER = """
import fcntl, sys, time
fcntl.flock = lambda *_: None
from pathlib import Path
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.locks import acquire_lock
lock = acquire_lock(Path(sys.argv[1]), RunError("in use"))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    monkeypatch.setattr(lock_owner, "SILENT_SEC", 1.5)
    monkeypatch.setattr(lock_owner, "_STEP_SEC", 0.05)
    monkeypatch.setattr(lock_owner, "_SETTLE_SEC", 0.05)
    monkeypatch.setattr(lock_owner, "_WRITE_SEC", 0.2)


def hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_without_flock_a_live_process_is_named_and_a_killed_one_replaced(
    tmp_path: Path, no_locks: None
) -> None:
    path = tmp_path / ".run.lock"
    holder = hold(path)
    try:
        with pytest.raises(RunError, match=rf"wait for it \(process {holder.pid} on "):
            acquire_lock(path, IN_USE)
    finally:
        holder.kill()
        holder.wait()
    with acquire_lock(path, IN_USE) as lock:
        assert not lock.closed
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def of_another_machine(path: Path) -> Path:
    record = path.with_name(path.name + ".owner")
    record.write_text(
        json.dumps({"host": "other", "machine": "m", "pid": os.getpid(), "started": 1, "token": "t"})
    )
    return record


def test_another_machine_that_gives_signs_of_life_is_named(tmp_path: Path, no_locks: None) -> None:
    path, over = tmp_path / ".run.lock", threading.Event()
    record = of_another_machine(path)

    def touch() -> None:
        while not over.wait(0.1):
            os.utime(record, ns=(time.time_ns(), time.time_ns()))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(RunError, match=rf"\(process {os.getpid()} on other\)"):
            acquire_lock(path, IN_USE)
    finally:
        over.set()
        thread.join()
    assert json.loads(record.read_text())["host"] == "other"


def test_another_machine_that_is_silent_is_replaced(tmp_path: Path, no_locks: None) -> None:
    path = tmp_path / ".run.lock"
    record = of_another_machine(path)
    with acquire_lock(path, IN_USE):
        assert json.loads(record.read_text())["host"] != "other"
    assert not record.exists()


def test_a_number_given_to_another_process_is_not_the_holder(tmp_path: Path, no_locks: None) -> None:
    path = tmp_path / ".run.lock"
    record = path.with_name(path.name + ".owner")
    here = lock_owner._this_process()
    record.write_text(json.dumps({**here, "started": here["started"] - 1, "token": "t"}))
    acquire_lock(path, IN_USE).close()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": "x"}', '{"machine": 5}'])
def test_a_damaged_record_does_not_lock_for_ever(
    tmp_path: Path, no_locks: None, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Nor is an unreadable one, which a kill cut short, watched as another machine's is."""
    monkeypatch.setattr(lock_owner, "SILENT_SEC", 1.5 if damage.startswith('{"') else 1e9)
    path = tmp_path / ".run.lock"
    path.with_name(path.name + ".owner").write_text(damage)
    acquire_lock(path, IN_USE).close()


def test_a_fork_does_not_release_its_parents_record(tmp_path: Path, no_locks: None) -> None:
    path = tmp_path / ".run.lock"
    with acquire_lock(path, IN_USE) as lock:
        child = os.fork()
        if child == 0:
            lock.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert path.with_name(path.name + ".owner").exists()


def test_what_a_killed_owner_left_is_swept(tmp_path: Path) -> None:
    """The half-written record of one that was killed while it claimed the lock, also without taking it."""
    path = tmp_path / ".run.lock"
    half = tmp_path / partial_name(".run.lock.owner")
    half.write_text("{")
    acquire_lock(path, IN_USE).close()
    assert not half.exists()
    half.write_text("{")
    holder = hold(path)
    record = path.with_name(path.name + ".owner")
    sweep_lock(path)
    assert record.exists() and not half.exists()
    holder.kill()
    holder.wait()
    sweep_lock(path)
    assert not record.exists()
    of_another_machine(path)
    sweep_lock(path)
    assert record.exists()
