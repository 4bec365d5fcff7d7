"""Text that came from elsewhere (servers, models, data, file names), made fit for a terminal and for one
line.

In: any text. Out: text without terminal escapes, control characters and lone surrogates; values cut to a
length that a person reads.
Knows nothing of where it came from.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?"  # two-character escapes
    r"|\x9b[0-?]*[ -/]*[@-~]",  # CSI in one byte
    re.DOTALL,
)
# C0 but newline and tab, DEL, C1, line and paragraph separators, what turns the direction of writing, lone
# surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONG_WORD = re.compile(r"\S{201,}")
MAX_LINE = 3_000  # characters of an error's line

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 100
_repr.maxlevel, _repr.maxdict, _repr.maxlist, _repr.maxtuple = 3, 6, 6, 6


def strip_control_characters(text: str) -> str:
    """The text without terminal escapes and control characters; newlines and tabs stay."""
    return _CONTROL.sub("", _SEQUENCES.sub("", text)) if not text.isprintable() else text


def one_line(text: str, most: int = MAX_LINE) -> str:
    """Clean, on one line; words over 200 characters and lines over ``most`` lose their middle."""
    line = " ".join(_LONG_WORD.sub(_shorten_word, strip_control_characters(text)).split())
    return line if len(line) <= most else f"{line[: most * 2 // 3]} ... {line[-most // 3 :]}"


def bounded_repr(value: Any) -> str:
    """A value as an error shows it: its ``repr``, bounded in length and depth, however large it is."""
    try:
        return _repr.repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python prints
        return f"a {type(value).__name__} too large to show"


def _shorten_word(found: re.Match[str]) -> str:
    word = found[0]
    return f"{word[:120]}...{word[-60:]}"
