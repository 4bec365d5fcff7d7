"""Runs and comparisons as files for other tools: CSV, JSON, XLSX, and lm-eval's own format.

In: ``ReportData``. Out: files in a folder. Knows nothing of HTML.
Spreadsheets run whatever looks like a formula, so XLSX cells are written as typed strings, and CSV text that
begins like a formula gets a leading apostrophe. CSV starts with a BOM, or Excel misreads Korean.
"""

from __future__ import annotations

import datetime
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.files import distinct_slugs, write_bytes_atomically, write_json_atomically
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.reporting.files.frames import report_data_json, report_frames
from kmmlu_fast.reporting.files.spreadsheet import write_xlsx
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording import error_text
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.runs.lm_eval_export import write_lm_eval
from kmmlu_fast.runs.run import refuse_early_stopped_runs

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_exports(
    formats: Sequence[str], report: ReportData, t: Translator, folder: Path, *, with_texts: bool = True
) -> list[Path]:
    """Write ``formats`` into ``folder``; returns the written files. Without ``with_texts``, no text of
    questions or models.
    """
    refuse_early_stopped_runs(report.runs)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for packed, name in ((False, "csv"), (True, "csv.gz")):
        if name in formats:
            written += write_csv_tables(report, folder, with_texts=with_texts, packed=packed)
    if "parquet" in formats:
        written += write_parquet_tables(report, folder, with_texts=with_texts)
    if "json" in formats:
        document = report_data_json(report, t)
        frames = error_text.error_frames(report)
        document["errors"] = {name: frame.to_dicts() for name, frame in frames.items()}
        write_json_atomically(folder / "report.json", document)
        written.append(folder / "report.json")
    if "xlsx" in formats:
        written.append(write_xlsx(report, t.lang, folder / "report.xlsx"))
    if "lm-eval" in formats:
        written += _write_lm_eval(report, folder, with_texts=with_texts)
    return written


def _write_lm_eval(report: ReportData, folder: Path, *, with_texts: bool) -> list[Path]:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    documents = lm_eval_documents(report.questions if with_texts else None)
    written = []
    for run, name in zip(report.runs, distinct_slugs(run.name for run in report.runs), strict=True):
        if run.predictions is not None:
            no_texts = pl.lit(None, pl.List(pl.String)).alias("texts")
            frame = run.frame if with_texts else run.frame.with_columns(no_texts)
            target = folder / "lm-eval" / name
            written.append(write_lm_eval(target, run.name, frame, run.facts, documents, stamp)[0])
    return written


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


def write_parquet_tables(report: ReportData, folder: Path, *, with_texts: bool = True) -> list[Path]:
    """``report_frames`` as Parquet: typed, and about a tenth of the CSV's size."""
    written = []
    for name, frame in report_frames(report, with_texts):
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        write_bytes_atomically(folder / f"{name}.parquet", buffer.getvalue())
        written.append(folder / f"{name}.parquet")
    return written


def lm_eval_documents(questions: pl.DataFrame | None) -> dict[str, dict[str, Any]]:
    """The dataset's rows as lm-eval's ``doc``, by question id; the answer is 1-based, as in the files."""
    if questions is None:
        return {}
    return {
        row["question_id"]: {
            "question": row["question"],
            "answer": OPTION_LETTERS.index(row["answer"]) + 1,
            **{letter: row[letter] for letter in OPTION_LETTERS if row.get(letter) is not None},
            "Category": row["subject"].replace("-", " "),
            "Human Accuracy": row["human_accuracy"],
        }
        for row in questions.iter_rows(named=True)
    }
