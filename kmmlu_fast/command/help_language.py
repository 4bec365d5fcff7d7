"""The language of ``--help``: which one a user wants, and the Korean of each English text.

In: arguments and the environment; an English text. Out: "en" or "ko"; the text. ``help_ko.json`` holds every
text once, by its English: a changed description has no Korean until it is translated again, which a test
reports. Knows nothing of flags or verbs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError

LANGUAGES = ("en", "ko")
_LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set decides (POSIX)


def choose_help_language(arguments: Sequence[str]) -> str:
    """``--lang`` if given, else the locale's if stdout can show it. ConfigError for another ``--lang``."""
    wanted = None
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == "--lang":
            wanted = value if equals else "".join(arguments[place + 1 : place + 2])
    if wanted is not None:
        if wanted not in LANGUAGES:
            raise ConfigError(f"--lang {wanted!r}: allowed are {', '.join(LANGUAGES)}")
        return wanted
    locale = next((os.environ[name] for name in _LOCALE if os.environ.get(name)), "")
    is_korean = locale.partition("_")[0].partition(".")[0].lower() == "ko"
    return "ko" if is_korean and _shows_korean() else "en"


def _shows_korean() -> bool:
    """Whether stdout's encoding has Hangul."""
    try:
        "가".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@cache
def load_korean_help() -> dict[str, str]:
    """English text -> Korean text, of everything that help shows."""
    texts: dict[str, str] = json.loads(Path(__file__).with_name("help_ko.json").read_text(encoding="utf-8"))
    return texts


def translate_help(text: str, lang: str) -> str:
    """The text in ``lang``; a text without a translation stays English."""
    return load_korean_help().get(" ".join(text.split()), text) if lang == "ko" else text
