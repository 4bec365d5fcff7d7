"""One reader per file format: JSON lines, JSON, CSV, TSV, Parquet, Arrow, Excel, each also compressed.

In: a path. Out: ``(number, row)``: the 1-based line of a JSON-lines file, the 1-based row of any other; a row
that cannot be read comes as the DataError that names it, so that the caller may go on. Files are streamed,
except JSON and Excel, whose formats require them whole. Knows nothing of what the columns mean.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import MAX_JSON_BYTES, first_duplicate, parse_json
from kmmlu_fast.core.table_files import collect_slice, read_arrow, read_excel, scan_parquet
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.file_text import (
    COMPRESSED,
    UNPACKING_ERRORS,
    detect_encoding,
    iter_text_lines,
    open_unpacked,
    read_all_text,
    read_head,
)

Row = dict[str, Any]
NumberedRow = tuple[int, Row | DataError]
FORMATS = "a .jsonl, .json, .csv, .tsv, .parquet, .arrow or .xlsx file (also .gz or .zst)"
_ROWS_AT_ONCE = 65_536  # rows of a columnar file in memory at a time
_SEPARATORS = (";", "\t", "|")


def format_suffix(path: Path) -> str:
    """The suffix that names the format: ``.jsonl`` of ``rows.jsonl.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_row_file(path: Path) -> bool:
    """Whether the file's name has the extension of a readable format."""
    return format_suffix(path) in READERS


def iter_file_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of one file; DataError if it is missing, has an unknown format, or cannot be read at all."""
    if path.is_dir():
        raise DataError(f"{path}: is a directory, not a file; give {FORMATS}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; give {FORMATS}, or a hub id such as owner/name")
    reader = READERS.get(format_suffix(path))
    if reader is None:
        raise DataError(f"{path}: unknown extension {path.suffix or '(none)'!r}; give {FORMATS}")
    if path.suffix.lower() in COMPRESSED and reader in (_iter_parquet, _iter_arrow, _iter_excel):
        raise DataError(f"{path}: unpack it first; this format is compressed already")
    return reader(path)


def _iter_jsonl(path: Path) -> Iterator[NumberedRow]:
    is_empty = True
    for number, line in iter_text_lines(path, detect_encoding(path, read_head(path))):
        if isinstance(line, DataError):
            yield number, line
            continue
        if is_empty and line.lstrip().startswith("["):
            yield from _iter_json(path)
            return
        if line.strip():
            is_empty = False
            yield number, _parse_line(line, f"{path} row {number}")
    if is_empty:
        raise DataError(f"{path}: has no rows; expected one JSON object per line")


def _parse_line(line: str, where: str) -> Row | DataError:
    try:
        row = parse_json(line, where, DataError, nan_is_null=True)
    except DataError as error:
        bare = line.rstrip().removesuffix(",")
        if bare == line.rstrip():
            return error
        try:
            row = parse_json(bare, where, DataError, nan_is_null=True)  # lines of a list without its brackets
        except DataError:
            return error
    return _check_row(row, where, "\\ud" in line or "\\uD" in line)


def _check_row(row: Any, where: str, may_be_broken: bool) -> Row | DataError:
    """An object without half characters: a lone surrogate is no text that a tokenizer takes."""
    if not isinstance(row, dict):
        return DataError(f"{where}: is a {type(row).__name__}, not a JSON object with named columns")
    if may_be_broken:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            broken = bounded_repr(error.object[error.start : error.end])
            return DataError(f"{where}: holds half a character ({broken}, a lone surrogate); take it out")
    return row


def _iter_json(path: Path) -> Iterator[NumberedRow]:
    encoding = detect_encoding(path, read_head(path))
    if _holds_json_lines(path, encoding):
        yield from _iter_jsonl(path)
        return
    text = read_all_text(path, encoding, MAX_JSON_BYTES)
    document = parse_json(text, str(path), DataError, nan_is_null=True)
    may_be_broken = "\\ud" in text or "\\uD" in text
    rows = _rows_of_object(document, path) if isinstance(document, dict) else document
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: has no rows; expected a list of JSON objects")
    for number, row in enumerate(rows, 1):
        yield number, _check_row(row, f"{path} row {number}", may_be_broken)


def _holds_json_lines(path: Path, encoding: str) -> bool:
    """Whether the first line is an object of its own and another one follows."""
    lines = (
        line for _, line in iter_text_lines(path, encoding) if isinstance(line, DataError) or line.strip()
    )
    first, second = next(lines, ""), next(lines, "")
    if isinstance(first, DataError) or isinstance(second, DataError):
        return False
    if not (first.lstrip().startswith("{") and second.lstrip().startswith("{")):
        return False
    return isinstance(_parse_line(first, str(path)), dict)


def _rows_of_object(document: dict[str, Any], path: Path) -> list[Any]:
    """The rows of an object with one list, of pandas' orientations, or the one row that the object is."""
    lists = {name: value for name, value in document.items() if isinstance(value, list)}
    if {"columns", "data"} <= lists.keys():  # orient="split"
        return [dict(zip(map(str, lists["columns"]), row, strict=False)) for row in lists["data"]]
    if len(lists) == 1:
        rows = next(iter(lists.values()))
        return rows if not rows or isinstance(rows[0], dict) else [document]
    if lists.keys() == document.keys() and len({len(column) for column in lists.values()}) == 1:
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    inner = [value for value in document.values() if isinstance(value, dict)]
    if inner and len(inner) == len(document):
        names = [set(value) for value in inner]
        if all(name.isdecimal() for name in names[0]) and all(other == names[0] for other in names):
            return [  # orient="columns", pandas' default
                {column: value[name] for column, value in document.items()} for name in inner[0]
            ]
        if all(name.isdecimal() for name in document):
            return inner  # orient="index"
    if not inner and not lists:
        return [document]
    raise DataError(
        f"{path}: is one JSON object; expected a list of objects, an object with one list, or one object per"
        " line (pandas: to_json(orient='records', lines=True))"
    )


def _iter_csv(path: Path) -> Iterator[NumberedRow]:
    csv.field_size_limit(2**31 - 1)
    head = read_head(path)
    encoding = detect_encoding(path, head)
    number = 0
    try:
        with open_unpacked(path) as stream:
            file = io.TextIOWrapper(cast(io.BufferedReader, stream), encoding=encoding, newline="")
            separator = _detect_separator(path, head.decode(encoding, "replace"))
            reader = csv.DictReader(file, delimiter=separator, strict=True)
            names = list(reader.fieldnames or ())
            repeated = first_duplicate(filter(None, names))
            if repeated is not None:
                raise DataError(f"{path}: has two columns {bounded_repr(repeated)}; keep only one")
            for number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    yield (
                        number,
                        DataError(
                            f"{path} row {number}: does not have the header's {len(names)} columns; quote"
                            " texts that contain the separator"
                        ),
                    )
                    continue
                yield number, {name: value or None for name, value in row.items()}
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} row {number + 1}: is not {encoding.removesuffix('-sig').upper()} text; save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} row {number + 1}: is not valid CSV ({error})") from error
    except UNPACKING_ERRORS as error:
        raise DataError(f"{path}: cannot be read to its end ({error})") from error
    if not number:
        raise DataError(f"{path}: has no rows; expected a header and rows")


def _detect_separator(path: Path, head: str) -> str:
    """The separator of the header line: the extension's own, if the header has it, else ; tab or |."""
    own = "\t" if format_suffix(path) == ".tsv" else ","
    header = "".join(head.lstrip("\ufeff").split("\n", 1)[0].split('"')[::2])  # outside quotes
    if own in header:
        return own
    return max((own, *_SEPARATORS, ","), key=lambda separator: header.count(separator))


def _iter_parquet(path: Path) -> Iterator[NumberedRow]:
    read_head(path)
    scan, total = scan_parquet(path, DataError)
    if not total:
        raise DataError(f"{path}: has no rows")
    for start in range(0, total, _ROWS_AT_ONCE):
        rows = collect_slice(scan.slice(start, _ROWS_AT_ONCE), path, DataError)
        if rows.is_empty():
            raise DataError(f"{path}: declares {total:,} rows, but has only {start:,}")
        yield from _iter_frame(rows, start)


def _iter_arrow(path: Path) -> Iterator[NumberedRow]:
    read_head(path)
    yield from _iter_whole_frame(read_arrow(path, DataError), path)


def _iter_excel(path: Path) -> Iterator[NumberedRow]:
    """The first sheet, its first row the column names."""
    read_head(path)
    yield from _iter_whole_frame(read_excel(path, DataError), path)


def _iter_whole_frame(frame: pl.DataFrame, path: Path) -> Iterator[NumberedRow]:
    if frame.is_empty():
        raise DataError(f"{path}: has no rows")
    for start in range(0, len(frame), _ROWS_AT_ONCE):
        yield from _iter_frame(frame.slice(start, _ROWS_AT_ONCE), start)


def _iter_frame(frame: pl.DataFrame, start: int) -> Iterator[NumberedRow]:
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    if floats:
        frame = frame.with_columns(pl.col(floats).fill_nan(None))
    yield from enumerate(frame.iter_rows(named=True), start + 1)


READERS: Mapping[str, Callable[[Path], Iterator[NumberedRow]]] = {
    ".jsonl": _iter_jsonl,
    ".ndjson": _iter_jsonl,
    ".json": _iter_json,
    ".csv": _iter_csv,
    ".tsv": _iter_csv,
    ".parquet": _iter_parquet,
    ".arrow": _iter_arrow,
    ".feather": _iter_arrow,
    ".xlsx": _iter_excel,
}
