"""Who holds a lock, where file locks do not reach: two machines on one shared folder.

In: the record's path (beside the lock file). Out: an ``Ownership``, or an error that names the holder. Knows
nothing of what the lock guards.

The record names machine and process, appears whole or not at all (synced, then a hard link), and is touched
every few seconds. On the same machine the process list tells at once whether the holder lives; another
machine's holder is watched for a minute, and is dead if it does not touch its record. A record that stays
unreadable was cut short with its writer. No clocks are compared.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.partials import open_partial, sweep_partials
from kmmlu_fast.core.reading import parse_json
from kmmlu_fast.core.untrusted_text import one_line

BEAT_SEC = 5.0
SILENT_SEC = 60.0  # a holder on another machine that is silent for so long is dead
_STEP_SEC = 0.5
_SETTLE_SEC = 1.0
_WRITE_SEC = 2.0  # in which a record that is being written where there are no hard links becomes readable


class Ownership:
    """The record of a lock that this process holds; ``close`` removes it."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self._path, self._record, self._pid = path, record, os.getpid()
        self._over = threading.Event()
        threading.Thread(target=self._touch, name="lock owner", daemon=True).start()

    def _touch(self) -> None:
        while not self._over.wait(BEAT_SEC):
            if self.is_lost():
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def is_lost(self) -> bool:
        """Whether another process has taken the lock over, because this one stood still for too long."""
        current = _read_record(self._path)
        return current is not None and current != self._record

    def close(self) -> None:
        """Remove the record, unless another process has taken it over, or this is a fork."""
        self._over.set()
        if os.getpid() == self._pid and _read_record(self._path) == self._record:
            with contextlib.suppress(OSError):
                self._path.unlink()


def claim_ownership(path: Path, in_use: KmmluError) -> Ownership | None:
    """Become the lock's owner. Raises ``in_use``, with the holder's name, if a live process is it. None if no
    record can be written here: the file lock then is all there is.
    """
    record = {**_this_process(), "token": secrets.token_hex(8)}
    sweep_partials(path.parent)  # also of owners that were killed while they wrote their record
    for _ in range(3):
        try:
            if _create_record(path, record):
                return Ownership(path, record)
        except OSError:
            return None
        other = _read_settled_record(path)
        if _is_alive(other, path):
            host = one_line(str((other or {}).get("host")), 100)
            raise type(in_use)(f"{in_use} (process {(other or {}).get('pid')} on {host})")
        if _read_record(path) != other:  # another process was faster
            continue
        with contextlib.suppress(OSError):
            path.unlink()
        if _create_record(path, record):
            time.sleep(_SETTLE_SEC if _is_foreign(other) else 0.0)  # others may have unlinked it as we did
            if _read_record(path) == record:
                return Ownership(path, record)
    raise in_use


def _create_record(path: Path, record: dict[str, Any]) -> bool:
    """Whether the record could be created; False if there is one."""
    data = json.dumps(record).encode()
    with open_partial(path) as (file, partial):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            with contextlib.suppress(FileExistsError), path.open("xb") as whole:
                whole.write(data)
                return True
            return False
    return True


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = parse_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError, KmmluError):
        return None
    return record if isinstance(record, dict) else None


def _read_settled_record(path: Path) -> dict[str, Any] | None:
    """The record; None if it is gone or stays unreadable."""
    end = time.monotonic() + _WRITE_SEC
    while True:
        record = _read_record(path)
        if record is not None or not path.exists() or time.monotonic() >= end:
            return record
        time.sleep(_STEP_SEC)


def sweep_record(path: Path) -> None:
    """Remove the record of a dead process of this machine. The caller holds the file lock beside it."""
    record = _read_record(path)
    if record is not None and not _is_foreign(record) and not _is_alive(record, path):
        with contextlib.suppress(OSError):
            path.unlink()


def _is_alive(record: dict[str, Any] | None, path: Path) -> bool:
    if record is None:
        return False
    if not _is_foreign(record):
        pid = record.get("pid")
        return type(pid) is int and _process_start(pid) == record.get("started") is not None
    before = _last_touch(path)
    if before is None:
        return False
    host = one_line(str(record.get("host")), 100)
    log_note(
        f"{path.name}: held by a process on {host}; watching for up to {SILENT_SEC:.0f} s whether it lives"
    )
    end = time.monotonic() + SILENT_SEC
    while time.monotonic() < end:
        time.sleep(_STEP_SEC)
        now = _last_touch(path)
        if now != before:
            return now is not None
    return False


def _is_foreign(record: dict[str, Any] | None) -> bool:
    return record is None or record.get("machine") != _this_process()["machine"]


def _last_touch(path: Path) -> int | None:
    """Opened, because NFS asks the server for a file's times only then."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return None


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": platform.node(),
        "machine": _machine_identity(),
        "pid": pid,
        "started": _process_start(pid),
    }


@functools.cache
def _machine_identity() -> str:
    """The running kernel and the namespace of process numbers (containers have their own)."""
    identity = platform.node()
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        identity = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return identity


def _process_start(pid: int) -> int | str | None:
    """When a process started, in kernel ticks, so that a number given to another one is told apart. None if
    there is no such process; "?" if the system does not say.
    """
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:
            return "?"
        return "?"
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
