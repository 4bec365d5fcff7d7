"""The XLSX export: runs, subjects, changes and questions as sheets.

In: what ``exports`` collected. Out: one workbook. Knows nothing of how the numbers came about.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kmmlu_fast.analysis.accuracy import by_group_of
from kmmlu_fast.analysis.comparison import Comparison
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.reporting.language import subject_name, supercategory_name, texts
from kmmlu_fast.reporting.verdict import verdict
from kmmlu_fast.runs.run import Run

_KO = {
    "Summary": "요약",
    "Totals": "전체",
    "Supercategories": "대분류",
    "Subjects": "과목",
    "Changes": "과목별 변화",
    "Run": "실행",
    "Correct": "정답 수",
    "Total": "문항 수",
    "Accuracy": "정확도",
    "Accuracy (micro)": "정확도 (micro)",
    "Accuracy (macro)": "정확도 (macro)",
    "95 % low": "95 % 하한",
    "95 % high": "95 % 상한",
    "Supercategory": "대분류",
    "Subject": "과목",
    "First": "기준",
    "Second": "비교",
    "First accuracy": "기준 정확도",
    "Second accuracy": "비교 정확도",
    "Difference": "차이",
    "n": "문항 수",
    "p (mid-p)": "p (mid-p)",
    "p (Holm)": "p (Holm)",
    "p (BH)": "p (BH)",
    "Detectable": "검출 가능",
    "b": "b",
    "c": "c",
    "Korean name": "영문 이름",
    "How to read this": "읽는 법",
}
_HOW = {
    "en": (
        (
            "Totals: accuracy over questions (micro) with its 95 % interval, and the mean of the subjects'"
            " accuracies (macro)."
        ),
        (
            "Changes: the same questions in both runs. b: only the first right, c: only the second. p:"
            " McNemar mid-p; Holm and BH correct it for the number of subjects. Detectable: the smallest true"
            " change that this many questions show with 80 % power."
        ),
        "Coloured bars are no tests: only p (Holm) below 0.05 is a change of that subject.",
    ),
    "ko": (
        "전체: 문항 정답률(micro)과 95 % 신뢰구간, 과목 정확도의 평균(macro).",
        (
            "과목별 변화: 두 실행의 같은 문항을 비교합니다. b는 기준만, c는 비교만 맞힌 문항 수. p는 McNemar"
            " mid-p이고 Holm과 BH는 과목 수만큼 보정한 "
            "값입니다. 검출 가능: 이 문항 수로 검정력 80 %에서 볼 수 있는 최소 변화."
        ),
        "막대 색은 검정이 아닙니다. p (Holm)이 0.05보다 작은 과목만 변했다고 할 수 있습니다.",
    ),
}


def write_xlsx(runs: list[Run], pairs: list[Comparison], lang: str, path: Path) -> Path:
    """The verdict and how to read it; totals, supercategories, subjects and changes, with
    native charts; headings in ``lang``.
    """
    import io

    import xlsxwriter

    def said(text: str) -> str:
        return _KO[text] if lang == "ko" else text

    buffer = io.BytesIO()
    options = {
        "in_memory": True,
        "strings_to_formulas": False,
        "strings_to_numbers": False,
        "strings_to_urls": False,
    }
    book = xlsxwriter.Workbook(buffer, options)
    book.set_properties({"title": "KMMLU", "comments": "kmmlu_fast.report"})
    sheets = _Sheets(book, said)
    t = texts(lang)
    verdicts = [(f"{pair.first} → {pair.second}", verdict(pair, t, lang)) for pair in pairs]
    sheets.summary([(name, lines) for name, lines in verdicts], said("How to read this"), list(_HOW[lang]))
    names = ["Run", "Correct", "Total", "Accuracy (micro)", "95 % low", "95 % high", "Accuracy (macro)"]
    totals = []
    for run in runs:
        whole = by_group_of(run, [])
        totals.append(
            [run.name, *whole[0], float((run.scores["correct"] / run.scores["total"]).mean() or 0.0)]  # type: ignore[arg-type]
        )  # type: ignore[arg-type]
    sheets.add("Totals", names, totals, percent=(3, 4, 5, 6), scale=(3, 6), chart=(0, 3))
    groups = [
        [run.name, supercategory_name(row[0], lang), *row[1:]]
        for run in runs
        for row in by_group_of(run, ["supercategory"])
    ]
    headings = ["Run", "Supercategory", "Correct", "Total", "Accuracy", "95 % low", "95 % high"]
    sheets.add("Supercategories", headings, groups, percent=(4, 5, 6), scale=(4,))
    other = "ko" if lang == "en" else "en"
    detail = [
        [
            run.name,
            subject_name(row[0], lang),
            subject_name(row[0], other),
            supercategory_name(row[1], lang),
            *row[2:],
        ]
        for run in runs
        for row in by_group_of(run, ["subject", "supercategory"])
    ]
    headings = [
        "Run",
        "Subject",
        "Korean name",
        "Supercategory",
        "Correct",
        "Total",
        "Accuracy",
        "95 % low",
        "95 % high",
    ]
    sheets.add("Subjects", headings, detail, percent=(6, 7, 8), scale=(6,))
    if pairs:
        headings = [
            "First",
            "Second",
            "Subject",
            "Korean name",
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
        columns = [
            "n",
            "first",
            "second",
            "difference",
            "low",
            "high",
            "b",
            "c",
            "p_value",
            "p_holm",
            "p_bh",
            "minimum_detectable_effect",
        ]
        changes = [
            [
                pair.first,
                pair.second,
                subject_name(row["subject"], lang),
                subject_name(row["subject"], other),
                *[row[name] for name in columns],
            ]
            for pair in pairs
            for row in pair.subjects.sort("difference", descending=True).iter_rows(named=True)
        ]
        sheets.add(
            "Changes",
            headings,
            changes,
            percent=(5, 6, 7, 8, 9, 15),
            scale=(),
            signed=(7,),
            p_values=(12, 13, 14),
            chart=(2, 7),
            charted=len(pairs[0].subjects),
        )
    book.close()
    write_bytes_atomically(path, buffer.getvalue())
    return path


class _Sheets:
    """Writes tables with headings, formats, colours and charts into a workbook."""

    def __init__(self, book: Any, said: Callable[[str], str]) -> None:
        self._book, self._said = book, said
        self._head = book.add_format(
            {"bold": True, "bg_color": "#E8EDF4", "bottom": 1, "text_wrap": True, "valign": "top"}
        )
        self._percent, self._signed = (
            book.add_format({"num_format": "0.00%"}),
            book.add_format({"num_format": "+0.00%;-0.00%;0.00%"}),
        )
        self._p, self._count = (
            book.add_format({"num_format": "0.0000"}),
            book.add_format({"num_format": "#,##0"}),
        )

    def add(
        self,
        name: str,
        headings: list[str],
        rows: list[list[Any]],
        percent: tuple[int, ...],
        scale: tuple[int, ...],
        signed: tuple[int, ...] = (),
        p_values: tuple[int, ...] = (),
        chart: tuple[int, int] | None = None,
        charted: int | None = None,
    ) -> None:
        """``chart``: (column of names, column of values) of a native bar chart beside the
        table, over the first ``charted`` rows.
        """
        sheet = self._book.add_worksheet(self._said(name))
        for column, heading in enumerate(headings):
            sheet.write_string(0, column, self._said(heading), self._head)
        for number, row in enumerate(rows, 1):
            for column, value in enumerate(row):
                if isinstance(value, str):
                    sheet.write_string(number, column, value)
                elif value is not None:
                    style = (
                        self._signed
                        if column in signed
                        else (
                            self._percent
                            if column in percent
                            else self._p
                            if column in p_values
                            else self._count
                        )
                    )
                    sheet.write_number(number, column, value, style)
        last = max(1, len(rows))
        sheet.freeze_panes(1, 1)
        sheet.autofilter(0, 0, last, len(headings) - 1)
        sheet.autofit(260)
        for column in scale:
            sheet.conditional_format(
                1,
                column,
                last,
                column,
                {
                    "type": "3_color_scale",
                    "min_color": "#F4B6A2",
                    "mid_color": "#FFFFFF",
                    "max_color": "#A9D8BE",
                },
            )
        for column in signed:
            bar = {
                "type": "data_bar",
                "bar_color": "#7FC4A4",
                "bar_negative_color": "#E58A6E",
                "bar_solid": True,
            }
            sheet.conditional_format(1, column, last, column, bar)
        for column in p_values:
            strong = self._book.add_format({"bold": True, "font_color": "#0B5D3E"})
            sheet.conditional_format(
                1, column, last, column, {"type": "cell", "criteria": "<", "value": 0.05, "format": strong}
            )
        if chart is not None and rows:
            names, values = chart
            end = min(last, charted or last)
            bars = self._book.add_chart({"type": "bar"})
            place = self._said(name)
            bars.add_series(
                {
                    "name": self._said(headings[values]),
                    "categories": [place, 1, names, end, names],
                    "values": [place, 1, values, end, values],
                    "fill": {"color": "#2563C9"},
                    "invert_if_negative": True,
                    "invert_if_negative_color": "#CF4520",
                    "gap": 40,
                }
            )
            bars.set_legend({"none": True})
            bars.set_title({"name": self._said(headings[values]), "name_font": {"size": 12}})
            bars.set_y_axis({"reverse": True, "label_position": "low", "num_font": {"size": 8}})
            bars.set_x_axis({"num_format": "0%"})
            bars.set_size({"width": 620, "height": max(180, 60 + 18 * end)})
            sheet.insert_chart(0, len(headings) + 1, bars)

    def summary(self, verdicts: list[tuple[str, list[str]]], how: str, lines: list[str]) -> None:
        """The first sheet: sentences."""
        sheet = self._book.add_worksheet(self._said("Summary"))
        wrapped = self._book.add_format({"text_wrap": True, "valign": "top"})
        sheet.set_column(0, 0, 110)
        row = 0
        for title, sentences in [*verdicts, (how, lines)]:
            sheet.write_string(row, 0, title, self._head)
            for sentence in sentences:
                row += 1
                sheet.write_string(row, 0, sentence, wrapped)
            row += 2
