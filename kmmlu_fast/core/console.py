"""Notes and progress of a command, on stderr.

In: texts. Out: lines on stderr. Results go to stdout and are printed by the code that has them. The library
itself prints nothing: ``log_note`` writes to the logger ``kmmlu_fast``, which a command (``show_notes``) and
``watch`` show.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from kmmlu_fast.core.untrusted_text import mask_credentials, strip_control_characters

_CLEAR = "\r\x1b[K"  # return to the start of the line and erase it (ECMA-48 EL)
LOGGER = logging.getLogger("kmmlu_fast")
LOGGER.addHandler(logging.NullHandler())


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current ``sys.stderr``, like ``logging``'s handler of last resort."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.setFormatter(logging.Formatter("%(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a name of the library's
        """Ignore it: a closed stderr neither stops the command nor prints a traceback."""

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def terminal_width(otherwise: int = 100) -> int:
    """The terminal's width, even if stdout goes to a pager; COLUMNS wins."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    for stream in (1, 2, 0):
        with contextlib.suppress(OSError):
            return os.get_terminal_size(stream).columns or otherwise
    return otherwise


def text_width(text: str) -> int:
    """The columns that a terminal gives a text: two for each Korean or other wide character."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def wrap_text(text: str, width: int) -> list[str]:
    """Wrap prose to ``width`` columns between words. A longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(lines[-1]) + 1 + text_width(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines or [""]


def wrap_line(line: str, width: int) -> str:
    """Wrap a line of prose to ``width`` between words; continuation lines are indented two more spaces."""
    if text_width(line) <= width:
        return line
    start = " " * (len(line) - len(line.lstrip()))
    first, *rest = wrap_text(line, width - len(start) - 2)
    return "\n".join([start + first, *(start + "  " + more for more in rest)])


@contextlib.contextmanager
def show_notes() -> Iterator[None]:
    """Show notes and progress on stderr while the block runs, as every command does."""
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


@contextlib.contextmanager
def show_notes_by_default() -> Iterator[None]:
    """As ``show_notes``, unless the caller's own ``logging`` takes notes: for what a script must be told."""
    with contextlib.nullcontext() if LOGGER.isEnabledFor(logging.INFO) else show_notes():
        yield


def are_notes_shown() -> bool:
    """Whether notes are shown on stderr."""
    return any(isinstance(handler, _StderrHandler) for handler in LOGGER.handlers)


class _StatusLine:
    """State of the terminal's last line."""

    moving = False  # whether it is a status line, which the next output replaces
    last_output_sec = 0.0  # time of the last output (time.monotonic)


def log_note(text: str) -> None:
    """Log a line of progress (``kmmlu_fast``, level INFO); a command shows it on stderr."""
    clear_status_line()
    _StatusLine.last_output_sec = time.monotonic()
    LOGGER.info("%s", mask_credentials(strip_control_characters(text)))


def show_status_line(text: str) -> None:
    """Show a line on the terminal that the next output replaces."""
    sys.stderr.write(f"{_CLEAR}{mask_credentials(strip_control_characters(text))}")
    sys.stderr.flush()
    _StatusLine.moving, _StatusLine.last_output_sec = True, time.monotonic()


def clear_status_line() -> None:
    """Erase the status line, if there is one."""
    if _StatusLine.moving:
        _StatusLine.moving = False
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()


def seconds_since_output() -> float:
    """Seconds since the last output."""
    return time.monotonic() - _StatusLine.last_output_sec
