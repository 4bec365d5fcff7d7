"""The XLSX export: runs, subjects, changes and questions as sheets.

In: what ``exports`` collected. Out: one workbook. Knows nothing of how the numbers came about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.analysis.accuracy import by_group_of
from kmmlu_fast.analysis.comparison import Comparison
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.reporting.language import subject_name, supercategory_name
from kmmlu_fast.runs.run import Run


def write_xlsx(runs: list[Run], pairs: list[Comparison], lang: str, path: Path) -> Path:
    """Totals, supercategories and subject detail of every run, and what changed: number formats, and colours by value."""
    import io

    import xlsxwriter

    buffer = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_numbers": False, "strings_to_urls": False}
    book = xlsxwriter.Workbook(buffer, options)
    book.set_properties({"title": "KMMLU", "comments": "kmmlu_fast.report"})
    sheets = _Sheets(book)
    names = ["Run", "Correct", "Total", "Accuracy (micro)", "95 % low", "95 % high", "Accuracy (macro)"]
    totals = []
    for run in runs:
        whole = by_group_of(run, [])
        totals.append([run.name, *whole[0], float((run.scores["correct"] / run.scores["total"]).mean() or 0.0)])  # type: ignore[arg-type]
    sheets.add("Totals", names, totals, percent=(3, 4, 5, 6), scale=(3, 6))
    groups = [[run.name, supercategory_name(row[0], lang), *row[1:]] for run in runs for row in by_group_of(run, ["supercategory"])]
    sheets.add(
        "Supercategories",
        ["Run", "Supercategory", "Correct", "Total", "Accuracy", "95 % low", "95 % high"],
        groups,
        percent=(4, 5, 6),
        scale=(4,),
    )
    detail = [
        [run.name, row[0], subject_name(row[0], "ko"), supercategory_name(row[1], lang), *row[2:]]
        for run in runs for row in by_group_of(run, ["subject", "supercategory"])
    ]  # fmt: skip
    headings = ["Run", "Subject", "과목", "Supercategory", "Correct", "Total", "Accuracy", "95 % low", "95 % high"]
    sheets.add("Subjects", headings, detail, percent=(6, 7, 8), scale=(6,))
    if pairs:
        headings = [
            "First",
            "Second",
            "Subject",
            "과목",
            "n",
            "First accuracy",
            "Second accuracy",
            "Difference",
            "95 % low",
            "95 % high",
            "b",
            "c",
            "p (mid-p)",
            "p (Holm)",
            "p (BH)",
            "Detectable",
        ]
        columns = ["n", "first", "second", "difference", "low", "high", "b", "c", "p_value", "p_holm", "p_bh", "minimum_detectable_effect"]
        changes = [
            [pair.first, pair.second, row["subject"], subject_name(row["subject"], "ko"), *[row[name] for name in columns]]
            for pair in pairs for row in pair.subjects.iter_rows(named=True)
        ]  # fmt: skip
        sheets.add("Changes", headings, changes, percent=(5, 6, 7, 8, 9, 15), scale=(), signed=(7,), p_values=(12, 13, 14))
    book.close()
    write_bytes_atomically(path, buffer.getvalue())
    return path


class _Sheets:
    """Writes tables with headings, formats and colours into a workbook."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._head = book.add_format({"bold": True, "bg_color": "#E8EDF4", "bottom": 1, "text_wrap": True, "valign": "top"})
        self._percent, self._signed = book.add_format({"num_format": "0.00%"}), book.add_format({"num_format": "+0.00%;-0.00%;0.00%"})
        self._p, self._count = book.add_format({"num_format": "0.0000"}), book.add_format({"num_format": "#,##0"})

    def add(
        self,
        name: str,
        headings: list[str],
        rows: list[list[Any]],
        percent: tuple[int, ...],
        scale: tuple[int, ...],
        signed: tuple[int, ...] = (),
        p_values: tuple[int, ...] = (),
    ) -> None:
        sheet = self._book.add_worksheet(name)
        for column, heading in enumerate(headings):
            sheet.write_string(0, column, heading, self._head)
        for number, row in enumerate(rows, 1):
            for column, value in enumerate(row):
                if isinstance(value, str):
                    sheet.write_string(number, column, value)
                elif value is not None:
                    style = (
                        self._signed
                        if column in signed
                        else self._percent
                        if column in percent
                        else self._p
                        if column in p_values
                        else self._count
                    )
                    sheet.write_number(number, column, value, style)
        last = max(1, len(rows))
        sheet.freeze_panes(1, 1)
        sheet.autofilter(0, 0, last, len(headings) - 1)
        sheet.autofit(260)
        for column in scale:
            sheet.conditional_format(
                1, column, last, column, {"type": "3_color_scale", "min_color": "#F4B6A2", "mid_color": "#FFFFFF", "max_color": "#A9D8BE"}
            )
        for column in signed:
            bar = {"type": "data_bar", "bar_color": "#7FC4A4", "bar_negative_color": "#E58A6E", "bar_solid": True}
            sheet.conditional_format(1, column, last, column, bar)
        for column in p_values:
            strong = self._book.add_format({"bold": True, "font_color": "#0B5D3E"})
            sheet.conditional_format(1, column, last, column, {"type": "cell", "criteria": "<", "value": 0.05, "format": strong})
