"""One writer at a time: a lock file that is held as long as the process lives.

In: the lock file's path and who is locked out by it. Out: a ``Lock``, or an error that names what is in use.
Knows nothing of what it guards.

By ``filelock`` (flock): the kernel lets go when the process dies, however it dies. The file itself stays:
whoever removed it after letting
go could remove the file that a third process has just locked, and two would write. A link in its place is not
followed.

NFS: Linux turns flock into a lock of the server's (NFSv4; NFSv3 with lockd), so that machines exclude each
other; mounted with ``nolock`` or
``local_lock=flock`` only processes of one machine do. Where a file system has no flock at all, filelock falls
back to a marker file, which
it knows to be stale when the process that wrote it on this machine is gone.
"""

from __future__ import annotations

import contextlib
import errno
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kmmlu_fast.core.errors import KmmluError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_WAIT_STEP_SEC = 0.5


class Lock:
    """A held lock; ``close`` or leaving the ``with`` block lets go."""

    def __init__(self, held: BaseFileLock) -> None:
        self._held = held

    @property
    def closed(self) -> bool:
        return not self._held.is_locked

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._held.release(force=True)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire_lock(path: Path, in_use: KmmluError, *, wait_sec: float = 0.0) -> Lock:
    """Take the lock, trying for ``wait_sec``. Raises ``in_use`` where another process keeps it, an error
    of its kind where it cannot be taken.
    """
    from filelock import FileLock, Timeout

    try:
        with warnings.catch_warnings(action="ignore"):  # of the fallback
            held = FileLock(path, thread_local=False)
            held.acquire(timeout=wait_sec, poll_interval=min(_WAIT_STEP_SEC, wait_sec or _WAIT_STEP_SEC))
    except Timeout as error:
        raise in_use from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise type(in_use)(f"{path}: is a link, which a lock never follows; remove it") from error
        if error.errno == errno.ENOLCK:
            raise type(in_use)(
                f"{path}: this file system gives no locks (NFS without lockd?); write to another one"
            ) from error
        raise
    except RuntimeError as error:  # this very process holds it
        raise in_use from error
    return Lock(held)
