"""Incomplete files: a dead writer's are swept by whoever writes there next, a running one's stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kmmlu_fast.core import partials
from kmmlu_fast.core.files import claim_outputs, write_bytes_atomically
from kmmlu_fast.core.partials import open_partial, partial_name, sweep_partials

WRITER = """
import sys, time
from pathlib import Path
from kmmlu_fast.core.partials import open_partial
with open_partial(Path(sys.argv[1])) as (file, _):
    file.write(b"question texts")
    file.flush()
    print("open", flush=True)
    time.sleep(60)
"""


def start_writer(target: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


@pytest.mark.parametrize("sweep", ["claim", "write", "sweep"])
def test_a_killed_writers_file_is_swept_and_a_running_ones_is_not(tmp_path: Path, sweep: str) -> None:
    target = tmp_path / "rows.jsonl"
    killed, running = start_writer(target), start_writer(target)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(list(tmp_path.glob("*.partial"))) == 2
        if sweep == "claim":
            claim_outputs([target])
        elif sweep == "write":
            write_bytes_atomically(tmp_path / "other.json", b"{}")
        else:
            sweep_partials(tmp_path)
        assert len(list(tmp_path.glob("*.partial"))) == 1
    finally:
        running.kill()
        running.wait()


def test_files_of_others_stay(tmp_path: Path) -> None:
    names = ["x.partial", ".x.partial", ".x.0123456789abcdef.partial", ".x.0123456789ab.part"]
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / partial_name("folder")).mkdir()
    (tmp_path / partial_name("link")).symlink_to(tmp_path / "x.partial")
    sweep_partials(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(names) + 2


def test_another_machines_file_is_swept_only_when_old(tmp_path: Path) -> None:
    digits = "0000" if partials._machine_digits() != "0000" else "1111"
    foreign = tmp_path / f".rows.{digits}01234567.partial"
    foreign.write_text("half")
    sweep_partials(tmp_path)
    assert foreign.exists()
    os.utime(foreign, (1e9, 1e9))
    sweep_partials(tmp_path)
    assert not foreign.exists()


def test_a_file_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = partials._lock_file, []

    def swept_first(descriptor: int, *, wait: bool) -> bool:
        calls.append(descriptor)
        if len(calls) == 1:
            next(tmp_path.glob("*.partial")).unlink()
        return whole(descriptor, wait=wait)

    monkeypatch.setattr(partials, "_lock_file", swept_first)
    with open_partial(tmp_path / "x") as (file, partial):
        file.write(b"x")
        assert partial.exists()
    assert len(calls) == 2 and not list(tmp_path.iterdir())
