"""How a command ends: at most one line on stderr, and an exit code.

In: an entry point's body. Out: a line, a code. Knows nothing of what the command does.

    0        done (1: leakage was found)
    2        an error the user can fix: one line that names file or flag, no traceback
    70       a bug: one line that names the file with the details, and how to report it
    130      Ctrl-C
    143      SIGTERM, and 129 SIGHUP, as schedulers send them: answers are kept, the same command continues
    141      the reader of stdout has gone (``| head``): prints nothing

``KMMLU_FAST_DEBUG=1`` raises bugs with their traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from kmmlu_fast.command.streams import accept_any_encoding, is_stdout_reader_gone
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.untrusted_text import mask_credentials, one_line, strip_control_characters

FAULT = 70  # EX_SOFTWARE of sysexits.h
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "os error 28",
    "os error 27",
    "PytorchStreamWriter failed writing",  # torch.save
    "inline_container.cc",  # torch.save, from its own destructor
)


class StoppedBySignal(BaseException):
    """A signal asked the process to end. Like KeyboardInterrupt, it passes through ``except Exception``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_to_exit_code(main: Callable[[], int | None]) -> int:
    """Run a body and return its exit code, whatever ends it."""
    accept_any_encoding()
    with _raise_on_stop_signals(), _short_warnings():
        try:
            try:
                code = main() or 0
            except SystemExit:  # --help
                sys.stdout.flush()
                raise
            sys.stdout.flush()
            return code
        except BaseException as error:
            return _exit_code_for(error)


def _exit_code_for(error: BaseException) -> int:  # noqa: C901 - one branch per way a command can end
    """Print the line for what ended a command, and return the code. Re-raises ``SystemExit`` (``--help``)."""
    if is_stdout_reader_gone(error):
        return 128 + signal.SIGPIPE
    if isinstance(error, SystemExit):
        if error.code == signal.SIGTERM:  # Ray's own handler ends the process like this
            return _report_stop_signal(signal.SIGTERM)
        raise error
    if isinstance(error, StoppedBySignal):
        return _report_stop_signal(error.number)
    if isinstance(error, KeyboardInterrupt):
        _print_to_stderr("interrupted: run the same command again to continue")
        return 130
    if isinstance(error, KmmluError):
        return _report_failure(str(error))
    if (path := find_full_disk_path(error)) is not None:
        advice = "free space, or write elsewhere, and run the same command again"
        return _report_failure(f"{path}: no space left to write to; {advice}")
    if isinstance(error, OSError):
        return _report_failure(_describe_os_error(error))
    if isinstance(error, UnicodeError):
        advice = "use UTF-8 files, and names that this system's encoding supports"
        return _report_failure(f"a text cannot be read or written ({error}); {advice}")
    if isinstance(error, RecursionError):
        return _report_failure(
            "a file is nested too deeply to be read; use one that this tool, lm-eval or PEFT wrote"
        )
    if isinstance(error, MemoryError):
        why = f" ({error})" if str(error) else ""
        return _report_failure(f"out of memory{why}; use smaller files, or a machine with more memory")
    # polars' panics are BaseExceptions.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return _report_internal_error(error)


def _print_to_stderr(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # its reader has gone
        print(mask_credentials(strip_control_characters(text)), file=sys.stderr, flush=True)


def _report_failure(text: str) -> int:
    _print_to_stderr(f"error: {one_line(text)}")
    return 2


def _report_stop_signal(number: int) -> int:
    name = signal.Signals(number).name
    _print_to_stderr(f"stopped by {name}: what was answered is kept; run the same command again to continue")
    return 128 + number


def _describe_os_error(error: OSError) -> str:
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = error.strerror or str(error) or type(error).__name__
    if not names:
        return what
    return f"{names}: {what.lower()}; check that it exists, is of the right kind, and that you may access it"


def find_full_disk_path(error: BaseException) -> str | None:
    """What could not be written if a full disk is the cause, also inside libraries' own errors; else None."""
    link: BaseException | None = error
    for _ in range(10):
        if link is None:
            return None
        if isinstance(link, OSError) and link.errno in _FULL:
            return str(link.filename or "disk full")
        if isinstance(link, Exception) and any(words in str(link) for words in _FULL_WORDS):
            return "disk full"
        link = link.__cause__ or link.__context__
    return None


def _report_internal_error(error: BaseException) -> int:
    """Report a bug: the traceback goes to a file, the line names it and how to report it."""
    if os.environ.get("KMMLU_FAST_DEBUG"):
        raise error
    kind = f"{type(error).__name__}: {one_line(str(error), 300)}" if str(error) else type(error).__name__
    try:
        where = f"details in {_write_fault_report(error)}"
    except OSError as unwritable:
        why = unwritable.strerror
        where = f"details could not be written ({why}): run again with KMMLU_FAST_DEBUG=1 to see them"
    report = "please report it as described in SECURITY.md, with that file"
    _print_to_stderr(f"error: a fault in kmmlu_fast itself ({kind}); {where}; {report}")
    return FAULT


def _write_fault_report(error: BaseException) -> Path:
    from kmmlu_fast.core.files import cache_root
    from kmmlu_fast.machine import environment

    lines = [f"command: {' '.join(sys.argv)}"]
    lines += [f"{name}: {value}" for name, value in environment.describe_environment().items()]
    lines += ["", "".join(traceback.format_exception(error))]
    data = mask_credentials("\n".join(lines)).encode("utf-8", "backslashreplace")
    name = f"fault-{time.strftime('%Y%m%dT%H%M%S')}-"
    for in_cache in (True, False):
        with contextlib.suppress(OSError, KmmluError):
            folder = cache_root() / "faults" if in_cache else Path(tempfile.gettempdir())
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(".txt", name, folder)  # readable by its owner only
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            return Path(path)
    raise OSError(errno.EACCES, "neither the cache nor the temporary folder can be written")


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Print our own warnings as one line, without the source location that Python adds."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if category is UserWarning:
            _print_to_stderr(f"warning: {one_line(str(message))}")
        else:
            before(message, category, *rest, **more)

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextlib.contextmanager
def _raise_on_stop_signals() -> Iterator[None]:
    """Raise StoppedBySignal in the main thread on the first SIGTERM or SIGHUP, so answers are written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for other in unhandled:
            signal.signal(other, signal.SIG_IGN)  # a second one must not interrupt the writing
        raise StoppedBySignal(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # Ignored signals stay ignored (nohup), and existing handlers stay.
    unhandled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)
