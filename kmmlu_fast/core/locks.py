"""One writer at a time: a lock file held for as long as the process lives.

In: the lock file's path and the error to raise if it is taken. Out: a ``Lock``. Knows nothing of what it
guards.

Uses ``filelock`` (flock): the kernel releases the lock when the process dies, however it dies. The file
itself is never removed: a process that removed it after releasing could remove the file that a third process
has just locked, and two would write. Links are not followed.

NFS: Linux turns flock into a lock on the server (NFSv4; NFSv3 with lockd), so that machines exclude each
other. Mounted with ``nolock`` or ``local_lock=flock``, or without flock at all, they do not: there the record
of ``lock_owner`` beside the lock file tells whether another machine holds it.
"""

from __future__ import annotations

import contextlib
import errno
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.lock_owner import Ownership, claim_ownership, sweep_record
from kmmlu_fast.core.partials import sweep_partials

if TYPE_CHECKING:
    from filelock import BaseFileLock

OWNER = ".owner"  # ending of the record beside the lock file
_WAIT_STEP_SEC = 0.5


class Lock:
    """An acquired lock; ``close`` or leaving the ``with`` block releases it."""

    def __init__(self, file_lock: BaseFileLock, owner: Ownership | None, in_use: KmmluError) -> None:
        self._file_lock, self._owner, self._in_use = file_lock, owner, in_use

    @property
    def closed(self) -> bool:
        return not self._file_lock.is_locked

    def refuse_if_lost(self) -> None:
        """Raises the lock's error if another machine's process has taken it over meanwhile."""
        if self._owner is not None and not self.closed and self._owner.is_lost():
            raise type(self._in_use)(
                f"{self._in_use} (it took over while this one stood still; nothing more is written here)"
            )

    def close(self) -> None:
        if self._owner is not None and not self.closed:
            self._owner.close()
        with contextlib.suppress(OSError):
            self._file_lock.release(force=True)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire_lock(path: Path, in_use: KmmluError, *, wait_sec: float = 0.0) -> Lock:
    """Acquire the lock, trying for ``wait_sec``. Raises ``in_use`` if another process holds it, an error of
    the same class if it cannot be acquired.
    """
    from filelock import FileLock, Timeout

    try:
        with warnings.catch_warnings(action="ignore"):  # filelock warns when it falls back
            file_lock = FileLock(path, thread_local=False)
            file_lock.acquire(timeout=wait_sec, poll_interval=min(_WAIT_STEP_SEC, wait_sec or _WAIT_STEP_SEC))
    except Timeout as error:
        raise in_use from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise type(in_use)(f"{path}: is a link, which a lock never follows; remove it") from error
        if error.errno == errno.ENOLCK:
            raise type(in_use)(
                f"{path}: this file system has no locks (NFS without lockd?); write to another one"
            ) from error
        raise
    except RuntimeError as error:  # this process already holds it
        raise in_use from error
    try:
        owner = _claim_within(path.with_name(path.name + OWNER), in_use, wait_sec)
        return Lock(file_lock, owner, in_use)
    except BaseException:
        file_lock.release(force=True)
        raise


def sweep_lock(path: Path) -> None:
    """Remove what killed owners of this lock left beside it. For commands that need not take it, because what
    it guards is complete; never waits.
    """
    sweep_partials(path.parent)
    record = path.with_name(path.name + OWNER)
    if not record.exists():
        return
    from filelock import FileLock, Timeout

    with contextlib.suppress(OSError, RuntimeError, Timeout), warnings.catch_warnings(action="ignore"):
        file_lock = FileLock(path, thread_local=False)
        file_lock.acquire(timeout=0)
        try:
            sweep_record(record)
        finally:
            file_lock.release(force=True)


def _claim_within(record: Path, in_use: KmmluError, wait_sec: float) -> Ownership | None:
    end = time.monotonic() + wait_sec
    while True:
        try:
            return claim_ownership(record, in_use)
        except type(in_use):
            if time.monotonic() >= end:
                raise
            time.sleep(_WAIT_STEP_SEC)
