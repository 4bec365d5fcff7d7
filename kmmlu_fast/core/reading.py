"""Reading untrusted files: bytes, text, JSON and YAML. Any bytes give a value or one error.

In: a path (or text) and the error class to raise. Out: plain values. Size, depth and length of numbers are
bounded. Duplicate JSON and YAML keys are refused, because one of the two would silently win. Knows nothing of
what the values mean; tables are read by ``table_files``.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from kmmlu_fast.core.errors import ConfigError, InstallError, KmmluError, RunError
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line

MAX_TEXT_BYTES = 1 << 30  # a training file or log, which is read into memory
MAX_JSON_BYTES = 256 << 20
MAX_YAML_BYTES = 1 << 20
MAX_ALIASES = 16  # "*name" in a YAML file; a few lines of them can expand to gigabytes
_ZIP_ZSTANDARD = 93  # zip's compression method, which Python reads from 3.14 on
MAX_DEPTH = 100  # of JSON and YAML
_MAX_INTEGER = 1 << 63
_PIECE_BYTES = 1 << 20

Raised = type[KmmluError]


def expand_path(path: str | Path, where: str = "path") -> Path:
    """The path with ``~`` and ``~user`` expanded. ConfigError for an unknown user or an impossible path."""
    text = str(path)
    if "\0" in text:
        raise ConfigError(f"{where} {bounded_repr(text)}: contains a NUL character; give a path")
    if len(text) > 4096:
        raise ConfigError(
            f"{where} {bounded_repr(text)}: has {len(text):,} characters; no path is longer than 4,096"
        )
    try:
        os.fsencode(text).decode("utf-8")
    except UnicodeError as error:
        raise ConfigError(
            f"{where} {bounded_repr(text)}: is not valid UTF-8, so it cannot be written into files; rename it"
        ) from error
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{where} {bounded_repr(text)}: there is no such user; give an absolute or relative path"
        ) from error


def read_bytes(path: Path, raised: Raised = RunError, most: int = MAX_TEXT_BYTES) -> bytes:
    """A file's bytes, at most ``most``. Devices and pipes, which may never end, are refused."""
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise raised(f"{path}: is {kind}; give a file")
        with path.open("rb") as file:
            data = _read_at_most(file, most)
    except (OSError, ValueError) as error:
        raise raised(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if data is None:
        size = f"{most / 2**20:,.0f} MiB"
        raise raised(f"{path}: is larger than {size}, the limit for such files; give the right file")
    return data


def _read_at_most(file: BinaryIO, most: int) -> bytes | None:
    """The file's bytes, None if there are more than ``most``. Asks for no more memory than its size."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        return None
    data = file.read(size + 1)
    if len(data) <= size:
        return data
    whole = bytearray(data)  # it grows, or states no size (as in /proc)
    while len(whole) <= most and (piece := file.read(min(_PIECE_BYTES, most + 1 - len(whole)))):
        whole += piece
    return bytes(whole) if len(whole) <= most else None


def read_text(path: Path, raised: Raised = RunError, most: int = MAX_TEXT_BYTES) -> str:
    """A file's text: UTF-8, with or without a byte-order mark."""
    try:
        return read_bytes(path, raised, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise raised(f"{path}: is not UTF-8 text (byte {error.start:,}); save it as UTF-8") from error


def read_json(
    path: Path, raised: Raised = RunError, *, constants: bool = True, large_integers: bool = False
) -> dict[str, Any]:
    """A JSON object from a file; ``raised`` names the file if it is not one. ``large_integers``: beyond 64
    bits too, as transformers writes "no limit" (10**30)."""
    text = read_text(path, raised, MAX_JSON_BYTES)
    value = parse_json(text, str(path), raised, constants=constants, large_integers=large_integers)
    if not isinstance(value, dict):
        raise raised(f"{path}: must hold a JSON object")
    return value


def parse_json(
    text: str,
    where: str,
    raised: Raised = RunError,
    *,
    constants: bool = True,
    nan_is_null: bool = False,
    large_integers: bool = False,
) -> Any:
    """Any JSON value. ``constants``: accept NaN and Infinity, which Python writes but JSON does not have;
    ``nan_is_null``: NaN, which pandas writes for an empty cell, is null."""
    constant = _null_for_nan if nan_is_null else None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_refuse_duplicate_keys,
            parse_int=None if large_integers else _parse_integer,
            parse_constant=constant if constants else _refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise raised(
            f"{where}: is not valid JSON ({error.msg} at line {error.lineno} column {error.colno})"
        ) from error
    except ValueError as error:
        raise raised(f"{where}: cannot be read as JSON ({error})") from error
    except (RecursionError, MemoryError) as error:
        raise raised(f"{where}: is nested too deeply to be read") from error
    if _is_deeper_than(value, MAX_DEPTH):
        raise raised(f"{where}: is nested deeper than {MAX_DEPTH} levels")
    return value


def _null_for_nan(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def first_duplicate(names: Iterable[str]) -> str | None:
    """The first name that appeared before, None if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        duplicate = first_duplicate(name for name, _ in pairs)
        raise ValueError(f"the key {bounded_repr(duplicate)} appears twice in one object")
    return values


def _parse_integer(digits: str) -> int:
    value = int(digits) if len(digits) < 25 else _MAX_INTEGER
    if not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise ValueError(f"{digits[:25]}... is too large a number")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _is_deeper_than(value: Any, most: int) -> bool:
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        inner = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in inner if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def read_json_zip(path: Path, names: tuple[str, ...], raised: Raised = RunError) -> dict[str, Any]:
    """The JSON values of a zip file's entries, those of ``names`` that it has, each at most MAX_JSON_BYTES.
    InstallError if one is compressed with Zstandard and nothing here reads that.
    """
    data = read_bytes(path, raised)
    values = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in names:
                if name not in archive.namelist():
                    continue
                entry = archive.getinfo(name)
                if entry.file_size > MAX_JSON_BYTES:
                    raise raised(
                        f"{path}: {name} says that it is {entry.file_size:,} bytes; that is too large"
                    )
                text = _zip_entry(archive, entry, data, path).decode("utf-8")
                values[name] = parse_json(text, f"{path}: {name}", raised)
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, NotImplementedError) as error:
        raise raised(f"{path}: is not a whole zip file ({error}); copy it again") from error
    except (RuntimeError, struct.error) as error:  # encrypted; a header that points nowhere
        raise raised(f"{path}: cannot be read as a zip file ({error})") from error
    return values


def _zip_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, data: bytes, path: Path) -> bytes:
    if entry.compress_type != _ZIP_ZSTANDARD:
        return archive.read(entry)
    try:
        import zstandard
    except ImportError as error:
        raise InstallError(
            f"{path}: is compressed with Zstandard; pip install 'kmmlu-fast[files]'"
        ) from error
    name_bytes, extra_bytes = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
    start = entry.header_offset + 30 + name_bytes + extra_bytes
    try:
        content: bytes = zstandard.ZstdDecompressor().decompress(
            data[start : start + entry.compress_size], max_output_size=max(entry.file_size, 1)
        )
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(str(error)) from error
    if zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile(f"{entry.filename} is damaged")
    return content


def read_yaml(path: Path, where: str, raised: Raised = ConfigError) -> Any:
    """A YAML value. Duplicate keys, more than MAX_ALIASES aliases and tags of Python objects are refused."""
    import yaml

    text = read_text(path, raised, MAX_YAML_BYTES)
    try:
        return yaml.load(text, Loader=_strict_yaml_loader())  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        why = one_line(str(getattr(error, "problem", None) or error), 200)
        raise raised(f"{where}{line}: is not valid YAML ({why})") from error
    # Impossible dates, numbers with too many digits, unhashable keys; KeyError, AttributeError and IndexError
    # from PyYAML's constructors for a tag that its value does not fit (!!bool 5).
    except (ValueError, OverflowError, TypeError, LookupError, AttributeError) as error:
        why = one_line(f"{type(error).__name__}: {error}", 200)
        raise raised(f"{where}: holds a value that cannot be read ({why})") from error
    except RecursionError as error:
        raise raised(f"{where}: is nested too deeply to be read") from error


def _strict_yaml_loader() -> Any:
    import yaml

    class Strict(yaml.SafeLoader):
        """SafeLoader that refuses duplicate keys, alias bombs and deep nesting."""

        aliases = 0
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            if self.check_event(yaml.events.AliasEvent):
                self.aliases += 1
                if self.aliases > MAX_ALIASES:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"more than {MAX_ALIASES} aliases", mark
                    )
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise yaml.constructor.ConstructorError(None, None, "nested too deeply", mark)
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key.value, str):
                    continue
                name = key.value.replace("-", "_")
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {bounded_repr(key.value)} appears twice", key.start_mark
                    )
                seen.add(name)
            return super().construct_mapping(node, deep)

    return Strict
