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


def tokens_digest(token_ids: Sequence[int]) -> str:
    """sha256 (16 hex digits) of a prompt's token ids: two runs asked the same thing if these agree."""
    return hashlib.sha256(",".join(map(str, token_ids)).encode()).hexdigest()[:16]


def fingerprint(parts: dict[str, Any], digits: int = 12) -> str:
    """sha256 (its first hex digits) over everything that decides a result: 12 digits name a
    run, 16 an adapter.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:digits]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
