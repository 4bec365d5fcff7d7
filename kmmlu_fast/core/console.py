"""What a command says beside its results: progress on stderr.

In: texts; an entry point's body. Out: lines on stderr, an exit code. Results go to stdout, by whoever has
them. The library itself prints nothing: ``log_note`` goes to the logger ``kmmlu_fast``, and only a command
(``show_notes``) shows that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import TextIO

from kmmlu_fast.core.untrusted_text import strip_control_characters

_CLEAR = "\r\x1b[K"  # to the beginning of the line, and what stands there away (ECMA-48 EL)
LOGGER = logging.getLogger("kmmlu_fast")
LOGGER.addHandler(logging.NullHandler())


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Today's ``sys.stderr``, whatever it was when the handler was made; as ``logging`` does
    for its last resort.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.setFormatter(logging.Formatter("%(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody reads stderr any more: no reason to stop, nor for a traceback."""

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def terminal_width(otherwise: int = 100) -> int:
    """How wide the terminal is, also where stdout goes to a pager; COLUMNS wins."""
    if (given := os.environ.get("COLUMNS", "")).isdigit() and int(given):
        return int(given)
    for stream in (1, 2, 0):
        with contextlib.suppress(OSError):
            return os.get_terminal_size(stream).columns or otherwise
    return otherwise


def wrap_line(line: str, width: int) -> str:
    """A line of prose at most ``width`` wide, broken between words, its own indent kept and deepened."""
    if len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


@contextlib.contextmanager
def show_notes() -> Iterator[None]:
    """Show notes and progress on stderr: what every command does, and only while it runs."""
    if are_notes_shown():
        yield
        return
    handler, level, propagate = _StderrHandler(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


def are_notes_shown() -> bool:
    """Whether notes are shown on stderr."""
    return any(isinstance(handler, _StderrHandler) for handler in LOGGER.handlers)


class _StatusLine:
    """What stands on the terminal just now."""

    moving = False  # a line without an end, which the next one replaces
    last_output_sec = 0.0  # when something was said last (time.monotonic)


def log_note(text: str) -> None:
    """A line of progress: stderr in a command, the logger ``kmmlu_fast`` (level INFO) in a
    program or notebook.
    """
    clear_status_line()
    _StatusLine.last_output_sec = time.monotonic()
    LOGGER.info("%s", strip_control_characters(text))


def show_status_line(text: str) -> None:
    """A line on the terminal that the next one replaces."""
    sys.stderr.write(f"{_CLEAR}{strip_control_characters(text)}")
    sys.stderr.flush()
    _StatusLine.moving, _StatusLine.last_output_sec = True, time.monotonic()


def clear_status_line() -> None:
    """Take the moving line away, if one stands there."""
    if _StatusLine.moving:
        _StatusLine.moving = False
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()


def seconds_since_output() -> float:
    """Seconds since anything was said."""
    return time.monotonic() - _StatusLine.last_output_sec
