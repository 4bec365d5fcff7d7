"""What tells two things apart: digests of token ids, files and settings, and the words for what differs.

In: JSON-able values, token ids, paths. Out: hex digits of a sha256; lines that name the differing keys. Knows
nothing of their meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.foreign import shown


def tokens_digest(token_ids: Sequence[int]) -> str:
    """sha256 (16 hex digits) of a prompt's token ids: two runs asked the same thing if these agree."""
    return text_digest(",".join(map(str, token_ids)))


def text_digest(text: str) -> str:
    """sha256 (16 hex digits) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(parts: dict[str, Any], digits: int = 12) -> str:
    """sha256 (its first hex digits) over everything that decides a result: 12 digits name a
    run, 16 an adapter.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:digits]


def differing(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The keys whose values are not the same, sorted, each with both values: fit for a line."""
    return [
        f"{key} ({shown(there.get(key))} there, {shown(here.get(key))} here)"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
