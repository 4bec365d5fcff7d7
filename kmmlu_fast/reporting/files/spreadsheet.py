"""The XLSX export: runs, subjects and changes as sheets.

In: ``ReportData``. Out: one workbook. Knows nothing of how the numbers are computed, nor of the file format
(``workbook``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.analysis.accuracy import run_accuracy_rows
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.reporting.files.export_formats import ExportFormat, ExportRequest
from kmmlu_fast.reporting.files.workbook import Sheet, Workbook
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import LANGUAGES, Translator, get_translator
from kmmlu_fast.reporting.wording.verdict import verdict_lines

# Columns of a pair's subjects -> their headings.
_CHANGES = {
    "n": "n",
    "first": "first_accuracy",
    "second": "second_accuracy",
    "difference": "difference",
    "low": "low",
    "high": "high",
    "b": "b",
    "c": "c",
    "p_value": "p",
    "p_holm": "holm",
    "p_bh": "bh",
    "minimum_detectable_effect": "detectable",
}


def write_xlsx(report: ReportData, lang: str, path: Path) -> Path:
    """The verdict and how to read it; totals, supercategories, subjects and changes, with native charts;
    headings in ``lang``.
    """
    t = get_translator(lang, "workbook")
    other = get_translator(next(name for name in LANGUAGES if name != lang))
    book = Workbook()
    sentences = [(f"{pair.first} → {pair.second}", verdict_lines(pair, t)) for pair in report.pairs]
    how = [t("how_totals"), t("how_changes"), t("how_bars")]
    book.add_sentences(t("sheet_summary"), [*sentences, (t("how"), how)])
    book.add(_totals_sheet(report, t))
    book.add(_supercategories_sheet(report, t))
    book.add(_subjects_sheet(report, t, other))
    if report.pairs:
        book.add(_changes_sheet(report, t, other))
    write_bytes_atomically(path, book.to_bytes())
    return path


def _column_headings(t: Translator, *names: str) -> list[str]:
    return [t(f"col_{name}") for name in names]


def _totals_sheet(report: ReportData, t: Translator) -> Sheet:
    headings = _column_headings(t, "run", "correct", "total", "micro", "low", "high", "macro")
    rows = [[run.name, *run_accuracy_rows(run, [])[0], run.macro] for run in report.runs]
    return Sheet(
        name=t("sheet_totals"), headings=headings, rows=rows, percent=(3, 4, 5, 6), scale=(3, 6), chart=(0, 3)
    )


def _supercategories_sheet(report: ReportData, t: Translator) -> Sheet:
    headings = _column_headings(t, "run", "supercategory", "correct", "total", "accuracy", "low", "high")
    rows = [
        [run.name, t.supercategory(row[0]), *row[1:]]
        for run in report.runs
        for row in run_accuracy_rows(run, ["supercategory"])
    ]
    return Sheet(name=t("sheet_supercategories"), headings=headings, rows=rows, percent=(4, 5, 6), scale=(4,))


def _subjects_sheet(report: ReportData, t: Translator, other: Translator) -> Sheet:
    names = ("run", "subject", "other_name", "supercategory", "correct", "total", "accuracy", "low", "high")
    rows = [
        [run.name, t.subject(row[0]), other.subject(row[0]), t.supercategory(row[1]), *row[2:]]
        for run in report.runs
        for row in run_accuracy_rows(run, ["subject", "supercategory"])
    ]
    return Sheet(
        name=t("sheet_subjects"),
        headings=_column_headings(t, *names),
        rows=rows,
        percent=(6, 7, 8),
        scale=(6,),
    )


def _changes_sheet(report: ReportData, t: Translator, other: Translator) -> Sheet:
    rows: list[list[Any]] = []
    for pair in report.pairs:
        for row in pair.subjects.sort("difference", descending=True).iter_rows(named=True):
            names = [pair.first, pair.second, t.subject(row["subject"]), other.subject(row["subject"])]
            rows.append([*names, *(row[name] for name in _CHANGES)])
    return Sheet(
        name=t("sheet_changes"),
        headings=_column_headings(t, "first", "second", "subject", "other_name", *_CHANGES.values()),
        rows=rows,
        percent=(5, 6, 8, 9, 15),
        signed=(7,),
        p_values=(12, 13, 14),
        chart=(2, 7),
        charted=len(report.pairs[0].subjects),
    )


def _write_workbook(request: ExportRequest) -> list[Path]:
    return [write_xlsx(request.report, request.translator.lang, request.folder / "report.xlsx")]


EXPORTS = (ExportFormat(name="xlsx", write=_write_workbook, paths=lambda folder: [folder / "report.xlsx"]),)
