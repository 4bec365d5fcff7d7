"""Calls a function whose input nobody vouches for, such as a chat template, within bounds of time and memory.

In: a function without arguments, limits. Out: its result, or ``BoundedCallError`` that says which limit it
broke or what it raised. Knows nothing of what the function does.

The function runs in a fork, which cannot change this process; its result, which must be picklable, comes
back through a pipe. A loop that never ends and a text of many gigabytes end only the fork. Where there is no
fork (Windows), the function is called here without bounds. The function must not use native threads (torch,
tokenizers, polars): a fork does not have them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from kmmlu_fast.core.untrusted_text import one_line

ResultT = TypeVar("ResultT")
_CHUNK_BYTES = 1 << 20
_MIB = 1 << 20


class BoundedCallError(Exception):
    """The call did not end within its bounds, or raised; the message is one line without a subject."""


def call_bounded(
    function: Callable[[], ResultT], *, seconds: float = 60.0, memory_bytes: int = 1 << 30
) -> ResultT:
    """The function's result. BoundedCallError if it takes longer, needs more memory than ``memory_bytes``
    on top of this process's, or raises.
    """
    if not hasattr(os, "fork"):
        try:
            return function()
        except Exception as error:
            raise BoundedCallError(_describe_error(error)) from error
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings(
        action="ignore"
    ):  # Python 3.12 warns of threads, which the fork does not use
        child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(function, writer, seconds, memory_bytes)
    os.close(writer)
    try:
        data = _read_until(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if data is None:
        raise BoundedCallError(f"did not end within {seconds:.0f} s")
    if not data:
        raise BoundedCallError(f"ended by {_describe_end(status)}")
    succeeded, result = pickle.loads(data)  # written by this program's own fork
    if not succeeded:
        raise BoundedCallError(result or f"needs more than {memory_bytes / _MIB:,.0f} MiB of memory")
    return result  # type: ignore[no-any-return]


def _run_child(function: Callable[[], object], writer: int, seconds: float, memory_bytes: int) -> NoReturn:
    """Does not return: the fork has none of the parent's clean-up to do."""
    try:
        _limit_resources(seconds, memory_bytes)
        try:
            data = pickle.dumps((True, function()))
        except MemoryError:
            data = pickle.dumps((False, ""))
        except BaseException as error:
            data = pickle.dumps((False, _describe_error(error)))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)
    finally:
        os._exit(0)


def _limit_resources(seconds: float, memory_bytes: int) -> None:
    import resource

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = int(seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    with contextlib.suppress(OSError, ValueError):  # macOS has no such limit
        most = _address_space_bytes() + memory_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _address_space_bytes() -> int:
    """What this process has mapped already."""
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _read_until(reader: int, end_sec: float) -> bytes | None:
    """Everything written to the pipe until it is closed; None if that takes longer."""
    data = bytearray()
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, end_sec - time.monotonic()))
        if not ready:
            return None
        chunk = os.read(reader, _CHUNK_BYTES)
        if not chunk:
            return bytes(data)
        data += chunk


def _describe_error(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}", 300)


def _describe_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.WEXITSTATUS(status)}"
