"""Digests of token ids, files and settings, and descriptions of how settings differ.

In: JSON-able values, token ids, paths. Out: hex digits of a sha256; lines that name the differing keys. Knows
nothing of their meaning.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.untrusted_text import bounded_repr

_YOUNG_SEC = 2.0  # the coarsest timestamp resolution of a file system (FAT)


def tokens_digest(token_ids: Sequence[int]) -> str:
    """sha256 (16 hex digits) of a prompt's token ids: equal for two runs with the same prompt."""
    return text_digest(("%d," * len(token_ids) % tuple(token_ids))[:-1])  # "5,7,9" in half the time of a join


def text_digest(text: str) -> str:
    """sha256 (16 hex digits) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compute_fingerprint(parts: dict[str, Any], digits: int = 12) -> str:
    """First hex digits of a sha256 over everything that decides a result: 12 for a run, 16 for an adapter."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def describe_differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The keys whose values differ, sorted, each with both values on one line."""
    return [
        f"{key} ({bounded_repr(there.get(key))} there, {bounded_repr(here.get(key))} here)"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def hash_file(path: Path) -> str:
    """sha256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stat_digest(paths: Iterable[Path]) -> str | None:
    """Digest of files' paths, sizes, times and inodes, to detect changes without reading them, as git does.

    None if a file was written so recently that a second write could go unnoticed.
    """
    entries = []
    for path in paths:
        state = path.stat()
        if time.time() - state.st_ctime < _YOUNG_SEC:
            return None
        entries.append(
            (str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        )
    return text_digest(repr(entries))
