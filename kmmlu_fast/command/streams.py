"""The standard streams of a command: consoles of any encoding, and readers that go away.

In: stdout and stderr as they are. Out: streams that take any text; whether their reader has gone. Knows
nothing of what is written.
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
    """Whether stdout's reader has gone and that is what ended the command."""
    gone = _stdout_has_no_reader()
    unwritten = _discard_unwritten()
    if isinstance(error, SystemExit):  # of --help; or rich's, which turns a broken pipe into one
        return isinstance(unwritten or error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and (gone or isinstance(unwritten, BrokenPipeError))


def _stdout_has_no_reader() -> bool:
    """Asked of the kernel: what is longer than the stream's buffer breaks while it is written, and nothing
    is left to tell it by.
    """
    with contextlib.suppress(OSError, ValueError):
        poller = select.poll()
        poller.register(1, select.POLLOUT)
        return any(event & select.POLLERR for _, event in poller.poll(0))
    return False


def _discard_unwritten() -> OSError | None:
    """Drop what the standard streams cannot get rid of, or the interpreter would complain at its end;
    says why stdout could not.
    """
    found = None
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError as error:
            found = error if number == 1 else found
            with contextlib.suppress(OSError, ValueError):
                hole = os.open(os.devnull, os.O_WRONLY)
                os.dup2(hole, number)
                os.close(hole)
                stream.flush()
        except ValueError:  # closed
            pass
    return found


def _substitute_characters(error: UnicodeError) -> tuple[str, int]:
    """What a console of another encoding shows: the nearest ASCII for signs that this program uses, else
    the character's number.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return part.translate(_PLAIN).encode("ascii", "backslashreplace").decode("ascii"), error.end


def accept_any_encoding() -> None:
    """Streams that take any text: cp949, latin-1 and ascii consoles get a substitute where they lack a
    character. Closed ones swallow it.
    """
    codecs.register_error("kmmlu_fast.substitute", _substitute_characters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="kmmlu_fast.substitute")
