"""The standard streams of a command: consoles of any encoding, and readers that go away.

In: stdout and stderr. Out: streams that accept any text; whether their reader has gone. Knows nothing of what
is written.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys

_PLAIN = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "…": "...",
        "·": ".",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "×": "x",
        "±": "+/-",
        "→": "->",
        "≥": ">=",
        "≤": "<=",
        "≈": "~",
        "Δ": "d",
        "✓": "ok",
        "•": "*",
        "\u00a0": " ",
    }
)


def is_stdout_reader_gone(error: BaseException) -> bool:
    """Whether the command ended because stdout's reader has gone."""
    gone = _stdout_has_no_reader()
    flush_error = _discard_unwritten()
    if isinstance(error, SystemExit):  # from --help, or from rich, which turns a broken pipe into one
        return isinstance(flush_error or error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and (gone or isinstance(flush_error, BrokenPipeError))


def _stdout_has_no_reader() -> bool:
    """Ask the kernel: long output fails while it is written, which leaves nothing to flush."""
    with contextlib.suppress(OSError, ValueError):
        poller = select.poll()
        poller.register(1, select.POLLOUT)
        return any(event & select.POLLERR for _, event in poller.poll(0))
    return False


def _discard_unwritten() -> OSError | None:
    """Drop unwritable output, about which Python would complain on exit; returns stdout's error."""
    stdout_error = None
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError as error:
            if number == 1:
                stdout_error = error
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, number)
                os.close(null)
                stream.flush()
        except ValueError:  # closed
            pass
    return stdout_error


def _substitute_characters(error: UnicodeError) -> tuple[str, int]:
    """Substitutes for a console's encoding: the nearest ASCII for known characters, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return part.translate(_PLAIN).encode("ascii", "backslashreplace").decode("ascii"), error.end


def open_standard_descriptors() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that the parent process closed.

    Otherwise the next file that is opened would get the number, and a native library that prints would write
    into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def accept_any_encoding() -> None:
    """Make the streams accept any text: characters that a cp949, latin-1 or ASCII console lacks are
    substituted. Closed streams discard it.
    """
    open_standard_descriptors()
    codecs.register_error("kmmlu_fast.substitute", _substitute_characters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="kmmlu_fast.substitute")
