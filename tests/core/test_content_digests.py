"""Digests over every byte, remembered only while the file is surely the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kmmlu_fast.core import content_digests as module
from kmmlu_fast.core.content_digests import content_digests


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_PIECE_BYTES", 1000)
    monkeypatch.setattr(module, "_BUFFER_BYTES", 300)
    monkeypatch.setattr(module, "_YOUNG_NS", 0)
    return tmp_path / "cache"


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2500, 3000])
def test_every_single_byte_counts(tmp_path: Path, size: int) -> None:
    path, found = tmp_path / "weights", set()
    for changed in [None, *range(0, size, 97), *([size - 1] if size else [])]:
        data = bytearray(size)
        if changed is not None:
            data[changed] = 1
        path.write_bytes(data)
        found.add(content_digests([path], "test")[path])
    assert len(found) == len({None, *range(0, size, 97), *([size - 1] if size else [])})


def test_a_file_is_read_again_only_if_its_state_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 5000)
    first = content_digests([path], "test")
    times = path.stat()

    def never(*_: object) -> bytes:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_hash_piece", never)
        assert content_digests([path], "test") == first
    with path.open("r+b") as file:  # the same size and mtime
        file.seek(2500)
        file.write(b"b")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert content_digests([path], "test") != first


def test_a_young_file_is_not_remembered(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_YOUNG_NS", 10**12)
    path = tmp_path / "weights"
    path.write_bytes(b"a")
    content_digests([path], "test")
    assert not (cache / "digests").exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"x": 1}'])
def test_a_damaged_memory_only_costs_time(tmp_path: Path, cache: Path, damage: bytes) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a")
    first = content_digests([path], "test")
    for memory in (cache / "digests").iterdir():
        memory.write_bytes(damage)
    assert content_digests([path], "test") == first


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a")
    whole = module._hash_piece

    def change(*given: object) -> bytes:
        time.sleep(0.02)
        path.write_bytes(b"ab")
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_hash_piece", change)
    with pytest.raises(OSError, match="changed while it was read"):
        content_digests([path], "test")
