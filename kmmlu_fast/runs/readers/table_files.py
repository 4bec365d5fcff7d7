"""Tables in any usual format, as frames of texts: CSV, TSV, JSON (lists, and tables of W&B), JSON lines,
Parquet, Arrow, Excel; texts in UTF-8, UTF-16 or CP949, and compressed.

In: a file. Out: a frame whose columns are strings, null where a cell is empty; columns of lists and objects
are left out. DataError names what cannot be read. Knows nothing of what the columns mean.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.table_files import MAX_TABLE_BYTES, parse_csv, read_arrow, read_excel, read_parquet
from kmmlu_fast.core.untrusted_text import bounded_repr, replace_surrogates
from kmmlu_fast.data.file_formats import format_suffix, iter_file_rows
from kmmlu_fast.data.file_text import COMPRESSED, read_table_text

TABLE_SUFFIXES = (
    *(".csv", ".tsv", ".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".jsonl", ".ndjson", ".json"),
)


def read_text_table(path: Path, document: Any = None) -> pl.DataFrame | None:
    """The file's table; None if its JSON is not a table. ``document``: its JSON value, if it has one."""
    suffix = format_suffix(path)
    if suffix in (".csv", ".tsv"):
        text = read_table_text(path, MAX_TABLE_BYTES)
        return parse_csv(text, path, DataError, _separator(text, suffix))
    if suffix not in (".jsonl", ".ndjson", ".json") and path.suffix.lower() in COMPRESSED:
        raise DataError(f"{path}: unpack it first; this format is compressed already")
    if suffix == ".parquet":
        return _as_texts(read_parquet(path, DataError))
    if suffix in (".arrow", ".feather"):
        return _as_texts(read_arrow(path, DataError))
    if suffix in (".xlsx", ".xls"):
        return _as_texts(read_excel(path, DataError))
    if suffix in (".jsonl", ".ndjson"):
        return _from_rows([_whole_row(row) for _, row in iter_file_rows(path)])
    if isinstance(document, dict) and isinstance(document.get("data"), list) and "columns" in document:
        return _from_wandb(document, path)
    if isinstance(document, list) and document and all(isinstance(row, dict) for row in document):
        return _from_rows(document)
    return None


def _separator(text: str, suffix: str) -> str:
    if suffix == ".tsv":
        return "\t"
    head = text[: 1 << 16].split("\n", 1)[0]
    counts = {separator: head.count(separator) for separator in (",", ";", "\t")}
    return max(counts, key=lambda separator: counts[separator])


def _as_texts(frame: pl.DataFrame) -> pl.DataFrame:
    plain = [name for name, dtype in frame.schema.items() if not dtype.is_nested()]
    return frame.select(
        pl.col(name).fill_nan(None).cast(pl.String)
        if frame.schema[name].is_float()
        else pl.col(name).cast(pl.String, strict=False)
        for name in plain
    )


def _whole_row(row: dict[str, Any] | DataError) -> dict[str, Any]:
    """The row; one that cannot be read stops everything, as its answers would be missing."""
    if isinstance(row, DataError):
        raise row
    return row


def _from_rows(rows: list[dict[str, Any]]) -> pl.DataFrame:
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    columns = {replace_surrogates(name): [_cell_text(row.get(name)) for row in rows] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _cell_text(value: Any) -> str | None:
    if value is None or isinstance(value, (list, dict)):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    return replace_surrogates(str(value))


def _from_wandb(document: dict[str, Any], path: Path) -> pl.DataFrame:
    names = [str(name) for name in document["columns"]]
    for number, row in enumerate(document["data"]):
        if not isinstance(row, list) or len(row) != len(names):
            raise DataError(
                f"{path} row {number}: has {bounded_repr(row)} for the columns {', '.join(names)}; export"
                " the table again"
            )
    return _from_rows([dict(zip(names, row, strict=True)) for row in document["data"]])
