"""Files: whole or not at all, readable names, the cache's place.

In: paths and what goes into them. Out: files written beside their place, synced and renamed. Knows nothing of what they hold.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import RunError


def cache_root() -> Path:
    """``$KMMLU_FAST_CACHE``, else ``$XDG_CACHE_HOME/kmmlu_fast``, else ``~/.cache/kmmlu_fast``."""
    explicit = os.environ.get("KMMLU_FAST_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kmmlu_fast"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; RunError names the file where it is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: must hold a JSON object")
    return value


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write beside, sync, rename, sync the folder."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json_atomically(path: Path, value: Any) -> None:
    write_bytes_atomically(path, (json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n").encode())


def slug(text: str) -> str:
    """A readable piece of a directory name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "x"
