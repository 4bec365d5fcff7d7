"""What tells two things apart: digests of token ids, files and settings, and the words for what differs.

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

_YOUNG_SEC = 2.0  # the coarsest times of a file system (FAT)


def tokens_digest(token_ids: Sequence[int]) -> str:
    """sha256 (16 hex digits) of a prompt's token ids: two runs asked the same thing if these agree."""
    return text_digest(",".join(map(str, token_ids)))


def text_digest(text: str) -> str:
    """sha256 (16 hex digits) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compute_fingerprint(parts: dict[str, Any], digits: int = 12) -> str:
    """sha256 (its first hex digits) over everything that decides a result: 12 digits name a
    run, 16 an adapter.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:digits]


def describe_differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The keys whose values are not the same, sorted, each with both values: fit for a line."""
    return [
        f"{key} ({bounded_repr(there.get(key))} there, {bounded_repr(here.get(key))} here)"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_stat_digest(paths: Iterable[Path]) -> str | None:
    """Tells whether files are the ones of before without reading them: by place, size, times and inode, as
    git does. None where one was written so lately that a second writing could go unseen.
    """
    found = []
    for path in paths:
        state = path.stat()
        if time.time() - state.st_ctime < _YOUNG_SEC:
            return None
        found.append((str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]
