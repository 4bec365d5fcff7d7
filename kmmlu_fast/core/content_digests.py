"""sha256 of whole files, computed once and remembered for as long as a file is the same.

In: paths. Out: a digest per file, over every byte. A remembered digest counts if size, mtime, ctime, inode
and device are the same: nobody can change a file's bytes and keep its ctime. Knows nothing of what the files
mean.

Files are hashed in pieces on several threads (``hashlib`` releases the interpreter lock), so one large file
uses all cores too; the digest of a file is that of its pieces' digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.files import cache_root, write_json_atomically
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.reading import read_json

_PIECE_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 20
_MOST_THREADS = 8
_YOUNG_NS = 2 * 10**9  # the coarsest timestamp resolution: a younger file could change without a trace
_GIB = 1 << 30


def content_digests(paths: Iterable[Path], what: str) -> dict[Path, str]:
    """Each file's digest. ``what`` names the work if it takes long. OSError if a file cannot be read, or
    changes meanwhile.
    """
    wanted = list(paths)
    states = {path: _file_state(path) for path in wanted}
    memory = _memory_path(wanted)
    remembered = _read_memory(memory)
    digests: dict[Path, str] = {}
    for path, state in states.items():
        entry = remembered.get(str(path.resolve()))
        if isinstance(entry, dict) and entry.get("state") == state and isinstance(entry.get("digest"), str):
            digests[path] = entry["digest"]
    new = {path: state for path, state in states.items() if path not in digests}
    if new:
        digests |= _hash_files(new, what)
        _write_memory(memory, states, digests)
    return digests


def newest_change_ns(paths: Iterable[Path]) -> int:
    """When the latest of the files was last changed, replaced or renamed (ctime)."""
    return max((path.stat().st_ctime_ns for path in paths), default=0)


def _file_state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]


def _hash_files(states: dict[Path, list[int]], what: str) -> dict[Path, str]:
    pieces = [
        (path, start) for path, state in states.items() for start in range(0, max(state[0], 1), _PIECE_BYTES)
    ]
    total = sum(state[0] for state in states.values())
    done = 0

    def show_done() -> str:
        return f"{done / _GIB:.1f} of {total / _GIB:.1f} GiB"

    def count_done(count: int) -> None:
        nonlocal done
        done += count  # only shown, so two threads at once may lose a step

    def hash_piece(piece: tuple[Path, int]) -> bytes:
        return _hash_piece(*piece, count_done)

    threads = min(_MOST_THREADS, os.cpu_count() or 1, len(pieces))
    whole = {path: hashlib.sha256() for path in states}
    with report_wait(what, show_done), ThreadPoolExecutor(threads, "hashing") as pool:
        for (path, _), digest in zip(pieces, pool.map(hash_piece, pieces), strict=True):
            whole[path].update(digest)
    for path, state in states.items():
        if _file_state(path) != state:
            raise OSError(None, "changed while it was read; wait until it is written", str(path))
    return {path: state.hexdigest() for path, state in whole.items()}


def _hash_piece(path: Path, start: int, count_done: Callable[[int], None]) -> bytes:
    state, left = hashlib.sha256(), _PIECE_BYTES
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left > 0:
            count = file.readinto(view[: min(left, _BUFFER_BYTES)])
            if not count:
                break
            state.update(view[:count])
            count_done(count)
            left -= count
    return state.digest()


def _memory_path(paths: list[Path]) -> Path:
    names = sorted(str(path.resolve()) for path in paths)
    return cache_root() / "digests" / f"{text_digest(repr(names))}.json"


def _read_memory(memory: Path) -> dict[str, Any]:
    with contextlib.suppress(KmmluError):  # missing or damaged: hashed again
        return read_json(memory)
    return {}


def _write_memory(memory: Path, states: dict[Path, list[int]], digests: dict[Path, str]) -> None:
    """Remember all but the files that are too young; a cache that cannot be written only costs time."""
    latest = time.time_ns() - _YOUNG_NS
    entries = {
        str(path.resolve()): {"state": state, "digest": digests[path]}
        for path, state in states.items()
        if state[2] < latest
    }
    if entries:
        with contextlib.suppress(OSError, KmmluError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomically(memory, entries)
