"""Incomplete files: hidden names beside the target, locked while written, swept if their writer died.

In: a target's path, a folder. Out: an open file; or nothing, after dead writers' files are removed. Knows
nothing of what is written.

A writer holds a lock (flock) on its incomplete file until it is renamed. The kernel releases the lock when
the process ends, however it ends, so a file that can be locked has no writer. Where locks do not reach other
machines (NFS with ``local_lock``), that holds for this machine only: the name says which one wrote it, and
another's file is swept only after an hour. Where there are no locks, nothing is swept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"
_NAME = re.compile(r"\.[A-Za-z0-9._-]{0,60}\.(?P<machine>[0-9a-f]{4})[0-9a-f]{8}\.partial")
_OTHER_MACHINE_SEC = 3600.0


def partial_name(name: str) -> str:
    """A hidden, unique name for an incomplete file, short enough for any file system."""
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", name[:60])  # ASCII works in any file-name encoding
    return f".{short}.{_machine_digits()}{secrets.token_hex(4)}{PARTIAL}"


@contextlib.contextmanager
def open_partial(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new incomplete file beside ``target``, locked while the block runs, then removed unless renamed."""
    while True:
        partial = target.with_name(partial_name(target.name))
        with partial.open("xb") as file:
            _lock_file(file.fileno(), wait=True)
            if os.fstat(file.fileno()).st_nlink == 0:  # swept before it was locked
                continue
            try:
                yield file, partial
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
            return


def sweep_partials(folder: Path) -> None:
    """Remove the incomplete files that dead writers left in the folder; those of running ones stay."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match:
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path), match["machine"])


def _remove_if_abandoned(path: Path, machine: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        is_foreign = machine != _machine_digits()
        is_young = is_foreign and time.time() - state.st_mtime < _OTHER_MACHINE_SEC
        if stat.S_ISREG(state.st_mode) and not is_young and _lock_file(descriptor, wait=False):
            path.unlink()
    finally:
        os.close(descriptor)


def _lock_file(descriptor: int, *, wait: bool) -> bool:
    """Whether the file could be locked. Closing the descriptor releases it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another process, or a file system without locks
        return False
    return True


@functools.cache
def _machine_digits() -> str:
    """Four hex digits for the running kernel, within which locks always work."""
    identity = platform.node()
    with contextlib.suppress(OSError):
        identity = Path("/proc/sys/kernel/random/boot_id").read_text()
    return hashlib.sha256(identity.encode()).hexdigest()[:4]
