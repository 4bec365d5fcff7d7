"""Reports the crash of a native library in one line: which library, where, what to do.

In: a verb's main. Out: its exit code. The verb runs in a fork made before anything is imported, which costs
milliseconds and no memory; this process only waits. The fork shares terminal, directory and process group,
so Ctrl-C, Ctrl-Z and input reach it; a signal sent to this process alone is forwarded; if this process is
killed, so is the fork. A verb that exits keeps its exit code. One ended by SIGTERM or SIGHUP ends this
process by the same signal. One that crashes, or that the kernel kills for memory, is reported, and the exit
code is the shell's: 128 + the signal's number.

The location comes from ``faulthandler``. Only processes that run a verb use the guard (under ``__main__``),
not calls from Python. ``KMMLU_GUARD=0`` turns it off (for debuggers and profilers). Knows nothing of verbs.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import linecache
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kmmlu_fast.command.streams import open_standard_descriptors
from kmmlu_fast.machine import host

_GIB = 1 << 30
_SI_KERNEL = 0x80  # siginfo: sent by the terminal to the whole foreground group, including the fork
_PR_SET_PDEATHSIG = 1
_FRAME = re.compile(r'^  File "(?P<path>[^"]+)", line (?P<line>\d+) in (?P<function>.+)$')
_CRASHES = ("SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP", "SIGKILL")
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD")


@dataclass(frozen=True, slots=True)
class CrashFrame:
    """One line of faulthandler's traceback."""

    path: str
    line: int
    function: str

    @property
    def library(self) -> str:
        """The installed package (or kmmlu_fast) that the file belongs to; empty for Python's own."""
        parts = Path(self.path).parts
        for root in ("site-packages", "dist-packages"):
            if root in parts:
                inner = parts[parts.index(root) + 1 :]
                return inner[0].removesuffix(".py") if inner else ""
        return "kmmlu_fast" if "kmmlu_fast" in parts else ""


def run_with_crash_guard(main: Callable[[], int]) -> int:
    """Run a verb's main in a watched fork; its exit code, or 128 + the signal that killed it (reported)."""
    if os.environ.get("KMMLU_GUARD") == "0" or not _can_fork() or sys.gettrace() is not None:
        return main()
    open_standard_descriptors()
    kills = host.count_oom_kills()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the parent process
            with contextlib.suppress(OSError, ValueError):
                stream.flush()  # or the fork would write it again
    # If it were ignored, as some parent processes leave it, there would be no exit status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with _open_trace() as trace, _block_signals() as mask:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _run_in_fork(main, parent, trace, mask)
        status, peak_bytes = _wait_for_child(child, mask)
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        number = os.WTERMSIG(status)
        trace.seek(0)
        traceback = trace.read().decode(errors="replace")
    if signal.Signals(number).name not in _CRASHES:
        _die_by_signal(number)
    starved = host.count_oom_kills() > kills
    explanation = explain_crash(number, parse_crash_frames(traceback), peak_bytes, starved)
    print(f"error: {explanation}", file=sys.stderr, flush=True)
    return 128 + number


def _open_trace() -> IO[bytes]:
    """A file for faulthandler's output: in memory if the system can, as no temporary folder may be usable."""
    with contextlib.suppress(OSError, AttributeError):
        return os.fdopen(os.memfd_create("kmmlu-fast-trace"), "w+b")
    with contextlib.suppress(OSError):
        return tempfile.TemporaryFile()
    return open(os.devnull, "w+b")  # noqa: PTH123


def parse_crash_frames(traceback: str) -> list[CrashFrame]:
    """The frames of the thread that crashed, innermost first, from faulthandler's output."""
    threads = re.split(r"^(?:Current t|T)hread .*$", traceback, flags=re.MULTILINE)
    text = threads[1] if len(threads) > 1 else traceback
    matches = (_FRAME.match(line) for line in text.splitlines())
    return [CrashFrame(m["path"], int(m["line"]), m["function"]) for m in matches if m]


def explain_crash(number: int, frames: list[CrashFrame], peak_bytes: int = 0, starved: bool = False) -> str:
    """One line: what died, of which signal, where, and what to do."""
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return _explain_kill(peak_bytes, starved)
    frame = next((frame for frame in frames if frame.library not in ("", "kmmlu_fast")), None)
    place = frame or next(iter(frames), None)
    library = frame.library if frame else "a native library"
    at = f" in {place.function} ({_short_location(place)}){_source_line(place)}" if place else ""
    if number == signal.SIGILL:
        kind = host.cpu_kind(host.detect_cpu().flags)
        what = f"executed an instruction that this CPU does not have ({kind})"
    else:
        what = "crashed"
    advice = "run kmmlu-fast doctor, which compares this machine and the packages with the pinned set"
    if number == signal.SIGBUS:
        advice = "the disk or /dev/shm may be full, or a model file truncated; otherwise " + advice
    return f"{library} {what}{at}: {name}; {advice}"


def _explain_kill(peak_bytes: int, starved: bool) -> str:
    peak = f", after using up to {peak_bytes / _GIB:.1f} GiB" if peak_bytes else ""
    if not starved:
        return f"killed from outside (SIGKILL){peak}; run the same command again to continue"
    total = host.memory_bytes()[0] / _GIB
    return (
        f"the kernel killed this process for memory (SIGKILL){peak}; it may use {total:.1f} GiB: use a"
        " smaller model, --max-num-seqs or --micro-batch, or end other programs, and rerun the same command"
    )


def _short_location(frame: CrashFrame) -> str:
    parts = Path(frame.path).parts
    start = next((i + 1 for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")), -2)
    return f"{'/'.join(parts[start:])}:{frame.line}"


def _source_line(frame: CrashFrame) -> str:
    line = linecache.getline(frame.path, frame.line).strip()
    return f" at `{line}`" if line else ""


def _can_fork() -> bool:
    """Whether this is Unix and the process has a single thread: a fork would lose the others."""
    if not (hasattr(os, "fork") and hasattr(signal, "sigwaitinfo")):
        return False
    tasks = Path("/proc/self/task")
    return threading.active_count() == 1 and (not tasks.exists() or len(list(tasks.iterdir())) == 1)


def _forwarded_signals() -> set[int]:
    return {int(getattr(signal, name)) for name in _FORWARDED}


@contextlib.contextmanager
def _block_signals() -> Iterator[set[int]]:
    """Block signals from before the fork until they are waited for, losing none; yields the old mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _forwarded_signals())
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_in_fork(main: Callable[[], int], parent: int, trace: IO[bytes], mask: set[int]) -> None:
    """The fork: die with the parent, record crashes, run the verb. Does not return."""
    _die_with_parent(parent)
    # A duplicate descriptor, which stays open until the very end.
    faulthandler.enable(file=os.dup(trace.fileno()), all_threads=False)
    exit_hook = _ExitHook()
    atexit.register(exit_hook.exit_process)  # registered first, so called last
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        exit_hook.code = main()
    except SystemExit as stop:
        exit_hook.code = (stop.code or 0) if isinstance(stop.code, int | None) else None
        raise
    sys.exit(exit_hook.code)


class _ExitHook:
    """Ends a process without tearing down every library's objects, like multiprocessing's forks and mypy.

    Threads are joined, ``atexit`` functions called and buffers written as usual. Teardown takes torch and
    vLLM a second or more, and is where they crash.
    """

    code: int | None = None  # None if Python should print the exception itself

    def exit_process(self) -> None:
        if self.code is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        except (AttributeError, OSError, ValueError):  # closed, full, no reader: left to Python
            return
        with contextlib.suppress(OSError, AttributeError):
            _load_libc().fflush(None)
        os._exit(self.code & 0xFF)


def _load_libc() -> Any:
    import ctypes

    return ctypes.CDLL(None)


def _die_with_parent(parent: int) -> None:
    """Make Linux kill this process when its parent ends, however it ends; elsewhere it runs on."""
    with contextlib.suppress(OSError, AttributeError):
        _load_libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _wait_for_child(child: int, mask: set[int]) -> tuple[int, int]:
    """Forward signals until the fork ends; its wait status and peak memory in bytes."""
    waited = _forwarded_signals() - mask
    while True:
        received = signal.sigwaitinfo(waited)
        if received.si_signo == signal.SIGCHLD:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                return status, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        elif received.si_code != _SI_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, received.si_signo)


def _die_by_signal(number: int) -> None:
    """End this process by the same signal as the fork, so that a shell or supervisor sees it."""
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # for a container's first process, which no default action ends
