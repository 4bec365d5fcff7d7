"""The CSV exports, plain and gzipped.

In: ``ReportData``. Out: a file per table. Knows nothing of HTML.
Spreadsheets run whatever looks like a formula, so text that begins like one gets a leading apostrophe. The
files start with a BOM, or Excel misreads Korean.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl

from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.reporting.files.export_formats import TABLES, ExportFormat, ExportRequest
from kmmlu_fast.reporting.files.frames import report_frames
from kmmlu_fast.reporting.report_data import ReportData

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def escape_formula(value: str | None) -> str | None:
    """Text that a spreadsheet does not run as a formula."""
    return "'" + value if value is not None and value.startswith(_FORMULA_STARTS) else value


def _write_csv_file(frame: pl.DataFrame, path: Path) -> Path:
    starts = r"^[=+\-@\t\r]"
    guarded = [
        pl.when(pl.col(name).str.contains(starts))
        .then(pl.lit("'") + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name, dtype in frame.schema.items()
        if dtype == pl.String
    ]
    headings = {name: escape_formula(name) or "" for name in frame.columns}
    content = frame.with_columns(guarded).rename(headings).write_csv(include_bom=True).encode()
    write_bytes_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_csv_tables(
    report: ReportData, folder: Path, *, with_texts: bool = True, packed: bool = False
) -> list[Path]:
    """``report_frames`` as CSV, or ``packed`` as gzipped CSV."""
    suffix = ".csv.gz" if packed else ".csv"
    return [
        _write_csv_file(frame, folder / f"{name}{suffix}")
        for name, frame in report_frames(report, with_texts)
    ]


def _write_plain(request: ExportRequest) -> list[Path]:
    return write_csv_tables(request.report, request.folder, with_texts=request.with_texts)


def _write_packed(request: ExportRequest) -> list[Path]:
    return write_csv_tables(request.report, request.folder, with_texts=request.with_texts, packed=True)


EXPORTS = (
    ExportFormat(
        name="csv", write=_write_plain, paths=lambda folder: [folder / f"{name}.csv" for name in TABLES]
    ),
    ExportFormat(
        name="csv.gz",
        write=_write_packed,
        paths=lambda folder: [folder / f"{name}.csv.gz" for name in TABLES],
    ),
)
