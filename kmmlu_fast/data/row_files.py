"""Rows of any table (JSONL, JSON, CSV, TSV, parquet, or a hub id), each a plain dict with its number.

In: a path or a hub id (with config and split). Out: an iterator of ``(number, row)``: the 1-based line of a
JSONL file, the 1-based row of any other. Files are streamed and never wholly in memory, except JSON, whose
format requires it. Knows nothing of what the columns mean.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import (
    MAX_JSON_BYTES,
    collect_slice,
    expand_path,
    first_duplicate,
    parse_json,
    read_text,
    scan_parquet,
)
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.machine.hub import hub_problem

Row = dict[str, Any]
_FORMATS = "a .jsonl, .json, .csv, .tsv or .parquet file"
_PARQUET_ROWS = 65_536  # parquet rows in memory at a time


def is_hub_id(source: str) -> bool:
    """Whether ``source`` can only be ``owner/name`` on the hub: one slash, no extension, no such path."""
    return (
        not source.startswith((".", "/", "~"))
        and source.count("/") == 1
        and Path(source).suffix not in READERS
        and not Path(source).exists()
    )


def iter_source_rows(
    source: str, config: str | None = None, split: str = "train", revision: str | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows of a file (by its extension) or of a hub data set's split. DataError names file and row of what
    cannot be read."""
    if is_hub_id(source):
        return iter_hub_rows(source, config, split, revision)
    return iter_file_rows(expand_path(source))


def iter_file_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows of one file; DataError if it is missing, its extension unknown, or a row not an object."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give {_FORMATS}, or a hub id such as owner/name")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown extension {path.suffix or '(none)'!r}; give {_FORMATS}")
    return reader(path)


def _iter_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    is_empty = True
    # Bytes, not text: lines end at \n only. Text mode and splitlines() also split at characters that JSON
    # strings may contain unescaped.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = _decode_utf8(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, path, number)
            if number == 1 and text.lstrip().startswith("["):
                yield from _iter_json(path)
                return
            if text.strip():
                is_empty = False
                where = f"{path} row {number}"
                yield number, _require_object(parse_json(text, where, DataError), where)
    if is_empty:
        raise DataError(f"{path}: has no rows; expected one JSON object per line")


def _iter_json(path: Path) -> Iterator[tuple[int, Row]]:
    document = parse_json(read_text(path, DataError, MAX_JSON_BYTES), str(path), DataError)
    if isinstance(document, dict):
        lists = [name for name, value in document.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(
                f"{path}: is one JSON object; expected a list of objects, or an object with one list"
            )
        document = document[lists[0]]
    if not isinstance(document, list) or not document:
        raise DataError(f"{path}: has no rows; expected a list of JSON objects")
    for number, row in enumerate(document, 1):
        yield number, _require_object(row, f"{path} row {number}")


def _decode_utf8(data: bytes, path: Path, number: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} row {number}: is not UTF-8 text; save it as UTF-8") from error


def _require_object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: is a {type(row).__name__}, not a JSON object with named columns")
    return row


def _iter_csv(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(2**31 - 1)
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, delimiter=separator, strict=True)
            names = list(reader.fieldnames or ())
            repeated = first_duplicate(filter(None, names))
            if repeated is not None:
                raise DataError(f"{path}: has two columns {bounded_repr(repeated)}; keep only one")
            for number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    raise DataError(
                        f"{path} row {number}: does not have the header's {len(names)} columns; quote texts"
                        " that contain the separator"
                    )
                yield number, {name: value or None for name, value in row.items()}
    except UnicodeDecodeError as error:
        raise DataError(f"{path} row {number + 1}: is not UTF-8 text; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path} row {number + 1}: is not valid CSV ({error})") from error
    if not number:
        raise DataError(f"{path}: has no rows; expected a header and rows")


def _iter_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    scan, total = scan_parquet(path, DataError)
    if not total:
        raise DataError(f"{path}: has no rows")
    for start in range(0, total, _PARQUET_ROWS):
        rows = collect_slice(scan.slice(start, _PARQUET_ROWS), path, DataError)
        if rows.is_empty():
            raise DataError(f"{path}: declares {total:,} rows, but has only {start:,}")
        yield from enumerate(rows.iter_rows(named=True), start + 1)


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _iter_jsonl,
    ".ndjson": _iter_jsonl,
    ".json": _iter_json,
    ".csv": _iter_csv,
    ".tsv": _iter_csv,
    ".parquet": _iter_parquet,
}


def iter_hub_rows(
    hub_id: str, config: str | None, split: str, revision: str | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows of one split on the hub, through ``datasets``. If access fails, DataError says what to do."""
    hub_problem()  # before the import of ``datasets``, which reads then whether to go online
    from datasets import load_dataset

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one warning per retry otherwise
    try:
        rows = load_dataset(hub_id, config, split=split, revision=revision)
    except Exception as error:  # the hub client and ``datasets`` raise dozens of kinds
        raise DataError(explain_hub_error(hub_id, error)) from error
    yield from enumerate(rows, 1)


def list_hub_configs(hub_id: str, revision: str | None = None) -> list[str]:
    """Names of a hub data set's configs."""
    hub_problem()
    from datasets import get_dataset_config_names

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return list(get_dataset_config_names(hub_id, revision=revision))
    except Exception as error:
        raise DataError(explain_hub_error(hub_id, error)) from error


def explain_hub_error(hub_id: str, error: BaseException) -> str:
    """One line for what the hub or ``datasets`` raised: gated, no token, no network, unknown config or
    split."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {type(link).__name__ for link in chain}
    responses = [getattr(link, "response", None) for link in chain]
    status = {getattr(response, "status_code", None) for response in responses}
    text = " ".join(map(str, chain))
    page = f"https://huggingface.co/datasets/{hub_id}"
    login = "log in with `hf auth login` (or set HF_TOKEN)"
    if "GatedRepoError" in kinds or "gated" in text.lower() or 403 in status:
        return f"{hub_id}: is gated: accept its terms at {page}, then {login}"
    if 401 in status or "LocalTokenNotFoundError" in kinds:
        return f"{hub_id}: needs a token, or does not exist: see {page}, accept its terms there, then {login}"
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"} and "connection" not in text.lower():
        return f"{hub_id}: the hub has no such data set, or it is private: check the name at {page}"
    if "ValueError" in kinds or "BuilderConfig" in text:
        return f"{hub_id}: {str(error).splitlines()[0]}; see {page} for its configs and splits"
    return (
        f"{hub_id}: the hub cannot be reached and the data set is not in the cache ({type(error).__name__}); "
        "check the network, or give its files by path"
    )
