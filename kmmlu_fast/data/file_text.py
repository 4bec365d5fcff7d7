"""The bytes of anybody's file as text lines: compressed or not, UTF-8, UTF-16 or CP949.

In: a path. Out: an open binary stream, its encoding, and lines; a note if the encoding is not UTF-8.
DataError for what is not the file itself (a Git LFS pointer, a web page). Knows nothing of rows.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import DataError, InstallError
from kmmlu_fast.core.reading import MAX_JSON_BYTES, read_bytes

_SAMPLE_BYTES = 1 << 20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def _open_zstd(path: Path) -> Any:
    with contextlib.suppress(ImportError):
        import zstandard

        return zstandard.open(path, "rb")
    with contextlib.suppress(ImportError):
        import pyarrow  # comes with ``datasets``

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    raise InstallError(
        f"{path}: reading .zst needs the package zstandard: pip install 'kmmlu-fast[files]', or unpack the"
        " file (zstd -d)"
    )


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
COMPRESSED = tuple(_OPENERS)
UNPACKING_ERRORS = (OSError, EOFError, lzma.LZMAError)


def open_unpacked(path: Path) -> io.BufferedIOBase:
    """The file's bytes, unpacked if its name says that it is compressed."""
    opener = _OPENERS.get(path.suffix.lower())
    stream = path.open("rb") if opener is None else opener(path)
    return stream if isinstance(stream, io.BufferedIOBase) else io.BufferedReader(stream)


@functools.cache
def note_once(source: Path, text: str) -> None:
    """A note about a file or folder, once per process: a source is read more than once."""
    log_note(f"note: {source}: {text}")


def read_head(path: Path) -> bytes:
    """The first megabyte. DataError for a file that stands for another, or cannot be unpacked."""
    try:
        with open_unpacked(path) as stream:
            head = stream.read(_SAMPLE_BYTES)
    except Exception as error:  # the unpackers' own kinds, zstandard's among them
        if isinstance(error, InstallError):
            raise
        raise DataError(f"{path}: cannot be read ({error})") from error
    if head.startswith(_LFS_POINTER):
        raise DataError(f"{path}: is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")
    if head[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path}: is a web page, not a data file; download the file itself")
    return head


def detect_encoding(path: Path, head: bytes) -> str:
    """utf-8-sig, utf-16, or cp949 if the bytes are no UTF-8 but valid CP949 (Excel's "CSV" on a Korean
    Windows), with a note."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        note_once(path, 'read as UTF-16 (Excel\'s "Unicode text")')
        return "utf-16"
    if not head.startswith(b"\xef\xbb\xbf") and head[:2000].count(0) > len(head[:2000]) // 4:
        low, high = head[:2000:2].count(0), head[1:2000:2].count(0)  # zeros are the high bytes of ASCII
        encoding = "utf-16-le" if high > low else "utf-16-be"
        note_once(path, "read as UTF-16 without a byte-order mark")
        return encoding
    sample = head if len(head) < _SAMPLE_BYTES else head[: head.rfind(b"\n") + 1] or head[:-4]
    text = sample.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    if broken == 0 or broken <= sum(1 for letter in text if letter > "\x7f") - broken:
        return "utf-8-sig"  # a broken row is named when it is read
    try:
        korean = sample.decode("cp949")
    except UnicodeDecodeError:
        return "utf-8-sig"
    if any("가" <= letter <= "힣" for letter in korean):
        note_once(path, 'read as CP949 (Excel\'s "CSV"); save it as "CSV UTF-8" to be sure')
        return "cp949"
    return "utf-8-sig"


def iter_text_lines(path: Path, encoding: str) -> Iterator[tuple[int, str | DataError]]:
    """(number from 1, line) of a text file, split at newlines only; a line that is not in the encoding comes
    as the DataError that names it."""
    if encoding.startswith("utf-16"):
        with open_unpacked(path) as stream:
            yield from enumerate(_decode_all(stream.read(), encoding, path).split("\n"), 1)
        return
    try:
        with open_unpacked(path) as stream:
            # Bytes, not text: text mode and splitlines() also split at characters that JSON strings may
            # contain unescaped.
            for number, line in enumerate(stream, 1):
                try:
                    yield number, line.decode(encoding if number == 1 else encoding.removesuffix("-sig"))
                except UnicodeDecodeError:
                    yield number, DataError(f"{path} row {number}: {_not_text(encoding)}")
    except UNPACKING_ERRORS as error:
        raise DataError(f"{path}: cannot be read to its end ({error})") from error


def read_table_text(path: Path, most: int) -> str:
    """A text table's whole text, at most ``most`` bytes, unpacked, in its encoding. Bytes that are not UTF-8
    become U+FFFD in a UTF-8 file."""
    encoding = detect_encoding(path, read_head(path))
    if path.suffix.lower() not in COMPRESSED:
        data = read_bytes(path, DataError, most)
    else:
        try:
            with open_unpacked(path) as stream:
                data = stream.read(most + 1)
        except UNPACKING_ERRORS as error:
            raise DataError(f"{path}: cannot be read to its end ({error})") from error
        if len(data) > most:
            raise DataError(f"{path}: unpacks to more than {most / 2**20:,.0f} MiB; split it")
    if encoding == "utf-8-sig":
        return data.decode(encoding, "replace")
    return _decode_all(data, encoding, path)


def read_all_text(path: Path, encoding: str, most: int) -> str:
    """The whole text, at most ``most`` bytes of it."""
    try:
        with open_unpacked(path) as stream:
            data = stream.read(most + 1)
    except UNPACKING_ERRORS as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(data) > most:
        raise DataError(
            f"{path}: is larger than {most / 2**20:,.0f} MiB, too much for one JSON document; write one"
            " object per line (.jsonl)"
        )
    return _decode_all(data, encoding, path)


def read_json_text(path: Path) -> str:
    """The whole text of a JSON document, unpacked, in its encoding."""
    return read_all_text(path, detect_encoding(path, read_head(path)), MAX_JSON_BYTES)


def _decode_all(data: bytes, encoding: str, path: Path) -> str:
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {_not_text(encoding)} (byte {error.start:,})") from error


def _not_text(encoding: str) -> str:
    name = encoding.removesuffix("-sig").upper()
    return f"is not {name} text; save it as UTF-8"
