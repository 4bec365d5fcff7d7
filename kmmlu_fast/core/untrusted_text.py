"""Making text from servers, models, data and file names safe to show on a terminal and on one line.

In: any text. Out: text without terminal escapes, control characters and lone surrogates; values cut to a
readable length. Knows nothing of where the text came from.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?"  # two-character escapes
    r"|\x9b[0-?]*[ -/]*[@-~]",  # one-byte CSI
    re.DOTALL,
)
# C0 except newline and tab, DEL, C1, line and paragraph separators, bidirectional controls, lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONG_WORD = re.compile(r"\S{201,}")
# user:password@host, with or without a scheme; a user alone only behind a scheme (it may be a token).
_CREDENTIALS = re.compile(
    r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#]*@|(?<![\w/])[^\s/@:'\"=\[]+:[^\s/@]+@(?=[\w\[])", re.IGNORECASE
)
MAX_LINE = 3_000  # characters of an error's line

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 100
_repr.maxlevel, _repr.maxdict, _repr.maxlist, _repr.maxtuple = 3, 6, 6, 6


def strip_control_characters(text: str) -> str:
    """The text without terminal escapes and control characters; newlines and tabs stay."""
    return _CONTROL.sub("", _SEQUENCES.sub("", text)) if not text.isprintable() else text


def replace_surrogates(text: str) -> str:
    """The text with ? for lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def mask_credentials(text: str) -> str:
    """The text with the user and password of addresses replaced by ``***``."""
    return _CREDENTIALS.sub(r"\1***@", text) if "@" in text else text


def one_line(text: str, most: int = MAX_LINE) -> str:
    """Clean text on one line; the middle of words over 200 characters and of lines over ``most`` is cut."""
    line = " ".join(_LONG_WORD.sub(_shorten_word, strip_control_characters(text)).split())
    return line if len(line) <= most else f"{line[: most * 2 // 3]} ... {line[-most // 3 :]}"


def bounded_repr(value: Any) -> str:
    """A value's ``repr`` for an error message, bounded in length and depth."""
    try:
        return _repr.repr(value)
    except (ValueError, RecursionError):  # a number with more digits than Python prints
        return f"a {type(value).__name__} too large to show"


def _shorten_word(match: re.Match[str]) -> str:
    word = match[0]
    return f"{word[:120]}...{word[-60:]}"
