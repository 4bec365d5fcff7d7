"""A verb whose native library dies says so in one line: which library, where, what to do.

In: a verb's main. Out: its exit code. The verb runs in a fork of this process, made before anything is
imported: milliseconds, and no memory but what the verb itself takes. This process only waits. The fork
shares terminal, directory and process group, so Ctrl-C, Ctrl-Z and input reach it as ever; a signal sent
to this process alone is handed on; if this process is killed, so is the fork. A verb that ends by itself
ends with its own code. One that is ended by a signal that asks it to (SIGTERM, SIGHUP) ends this process
by the same. One that crashes, or that the kernel kills for memory, is reported, and the code is the
shell's: 128 + the signal's number.

Where the crash was is what ``faulthandler`` wrote. Only for processes that are a verb, not for calls from
Python: the doors use it under ``__main__``. ``KMMLU_GUARD=0`` switches it off (debuggers, profilers).
Knows nothing of verbs.
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

from kmmlu_fast.machine import host

_GIB = 1 << 30
_SI_KERNEL = 0x80  # siginfo: the terminal sent it, so to the whole foreground group, the fork included
_PR_SET_PDEATHSIG = 1
_FRAME = re.compile(r'^  File "(?P<path>[^"]+)", line (?P<line>\d+) in (?P<function>.+)$')
_CRASHES = ("SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP", "SIGKILL")
_HANDED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD")


@dataclass(frozen=True, slots=True)
class CrashFrame:
    """One line of faulthandler's traceback."""

    path: str
    line: int
    function: str

    @property
    def library(self) -> str:
        """The installed package or our own that the file belongs to; empty for Python's own."""
        parts = Path(self.path).parts
        for root in ("site-packages", "dist-packages"):
            if root in parts:
                inner = parts[parts.index(root) + 1 :]
                return inner[0].removesuffix(".py") if inner else ""
        return "kmmlu_fast" if "kmmlu_fast" in parts else ""


def run_with_crash_guard(main: Callable[[], int]) -> int:
    """Run a verb's main in a watched fork; its exit code, or 128 + the signal it died of (reported)."""
    if os.environ.get("KMMLU_GUARD") == "0" or not _can_fork() or sys.gettrace() is not None:
        return main()
    kills = host.count_oom_kills()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by whoever started us
            with contextlib.suppress(OSError, ValueError):
                stream.flush()  # or the fork would write it once more
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # ignored, as some starters leave it, there would be no status
    with tempfile.TemporaryFile() as trace, _block_signals() as mask:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _run_in_fork(main, parent, trace, mask)
        status, peak_bytes = _wait_for_child(child, mask)
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        number = os.WTERMSIG(status)
        trace.seek(0)
        written = trace.read().decode(errors="replace")
    if signal.Signals(number).name not in _CRASHES:
        _die_by_signal(number)
    starved = host.count_oom_kills() > kills
    print(
        f"error: {explain_crash(number, parse_crash_frames(written), peak_bytes, starved)}",
        file=sys.stderr,
        flush=True,
    )
    return 128 + number


def parse_crash_frames(written: str) -> list[CrashFrame]:
    """The frames of the thread that crashed, the innermost first, from what faulthandler wrote."""
    current = re.split(r"^(?:Current t|T)hread .*$", written, flags=re.MULTILINE)
    text = current[1] if len(current) > 1 else written
    found = (_FRAME.match(line) for line in text.splitlines())
    return [CrashFrame(m["path"], int(m["line"]), m["function"]) for m in found if m]


def explain_crash(number: int, where: list[CrashFrame], peak_bytes: int = 0, starved: bool = False) -> str:
    """The one line: what died, of what, where, and what to do."""
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return _explain_kill(peak_bytes, starved)
    frame = next((frame for frame in where if frame.library not in ("", "kmmlu_fast")), None)
    place = frame or next(iter(where), None)
    library = frame.library if frame else "a native library"
    at = f" in {place.function} ({_short_location(place)}){_source_line(place)}" if place else ""
    if number == signal.SIGILL:
        kind = host.cpu_kind(host.detect_cpu().flags)
        what = f"executed an instruction that this CPU does not have ({kind})"
    else:
        what = "crashed"
    advice = "run kmmlu-fast doctor, which compares this machine and the packages with the pinned set"
    if number == signal.SIGBUS:
        advice = "the disk or /dev/shm may be full, or a model file cut short; then " + advice
    return f"{library} {what}{at}: {name}; {advice}"


def _explain_kill(peak_bytes: int, starved: bool) -> str:
    held = f", after holding up to {peak_bytes / _GIB:.1f} GiB" if peak_bytes else ""
    if not starved:
        return f"killed from outside (SIGKILL){held}; run the same command again to continue"
    total = host.memory_bytes()[0] / _GIB
    return (
        f"the kernel killed this process for memory (SIGKILL){held}; {total:.1f} GiB are here: take a smaller"
        " model, --max-num-seqs or --micro-batch, or end other programs, and run the same command again"
    )


def _short_location(frame: CrashFrame) -> str:
    parts = Path(frame.path).parts
    start = next((i + 1 for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")), -2)
    return f"{'/'.join(parts[start:])}:{frame.line}"


def _source_line(frame: CrashFrame) -> str:
    line = linecache.getline(frame.path, frame.line).strip()
    return f" at `{line}`" if line else ""


def _can_fork() -> bool:
    """Only on Unix, and only while this is the process's one thread: others would not be in the fork."""
    if not (hasattr(os, "fork") and hasattr(signal, "sigwaitinfo")):
        return False
    tasks = Path("/proc/self/task")
    return threading.active_count() == 1 and (not tasks.exists() or len(list(tasks.iterdir())) == 1)


def _forwarded_signals() -> set[int]:
    return {int(getattr(signal, name)) for name in _HANDED_ON}


@contextlib.contextmanager
def _block_signals() -> Iterator[set[int]]:
    """Signals wait from before the fork until asked for, so that none is lost; yields the mask that was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _forwarded_signals())
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_in_fork(main: Callable[[], int], parent: int, trace: IO[bytes], mask: set[int]) -> None:
    """The fork: die with the parent, write where a crash was, run the verb. Does not return."""
    _die_with_parent(parent)
    faulthandler.enable(
        file=os.dup(trace.fileno()), all_threads=False
    )  # a copy: written to until the very end
    ending = _ExitHook()
    atexit.register(ending.exit_process)  # the first of this process's, so the last that is called
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        ending.code = main()
    except SystemExit as stop:
        ending.code = (stop.code or 0) if isinstance(stop.code, int | None) else None
        raise
    sys.exit(ending.code)


class _ExitHook:
    """The end of a verb that ended by itself: threads are waited for, what was registered with ``atexit`` is
    called, buffers are written, but no library's objects are taken apart one by one (a second or more of
    torch and vLLM, and the place where they crash). As multiprocessing ends its forks, and mypy itself.
    """

    code: int | None = None  # None: of an error that Python is to show

    def exit_process(self) -> None:
        if self.code is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        except (AttributeError, OSError, ValueError):  # closed, full, nobody reads it: as Python judges it
            return
        with contextlib.suppress(OSError, AttributeError):
            _load_libc().fflush(None)
        os._exit(self.code & 0xFF)


def _load_libc() -> Any:
    import ctypes

    return ctypes.CDLL(None)


def _die_with_parent(parent: int) -> None:
    """Linux ends this process when its parent ends, whatever ended that; elsewhere it runs on."""
    with contextlib.suppress(OSError, AttributeError):
        _load_libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _wait_for_child(child: int, mask: set[int]) -> tuple[int, int]:
    """Hand signals on until the fork ends: its wait status, and the most memory it held in bytes."""
    waited = _forwarded_signals() - mask
    while True:
        found = signal.sigwaitinfo(waited)
        if found.si_signo == signal.SIGCHLD:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                return status, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        elif found.si_code != _SI_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, found.si_signo)


def _die_by_signal(number: int) -> None:
    """End this process as the fork was ended, so that a shell or supervisor sees the same."""
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # as the first process of a container, which no default action ends
