"""An XLSX workbook: tables with headings, formats, colours and native charts.

In: ``Sheet``s. Out: the file's bytes. Cells are typed: text is written as text, so that nothing acts as a
formula or a link. Knows nothing of runs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.console import wrap_text

_OPTIONS = {
    "in_memory": True,
    "strings_to_formulas": False,
    "strings_to_numbers": False,
    "strings_to_urls": False,
}
_SCALE = {"type": "3_color_scale", "min_color": "#F4B6A2", "mid_color": "#FFFFFF", "max_color": "#A9D8BE"}
_BAR = {"type": "data_bar", "bar_color": "#7FC4A4", "bar_negative_color": "#E58A6E", "bar_solid": True}


_A4 = 9
_SENTENCE_COLUMNS, _LINE_POINTS = 105, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table. Columns by number: ``percent`` and ``signed`` shares, ``p_values``, ``scale`` coloured by
    value; ``chart``: (column of names, column of values) of a bar chart over the first ``charted`` rows.
    """

    name: str
    headings: list[str]
    rows: list[list[Any]]
    percent: tuple[int, ...] = ()
    scale: tuple[int, ...] = ()
    signed: tuple[int, ...] = ()
    p_values: tuple[int, ...] = ()
    chart: tuple[int, int] | None = None
    charted: int | None = None


class Workbook:
    """Sheets in the order of their adding; ``to_bytes`` ends it."""

    def __init__(self) -> None:
        import xlsxwriter

        self._buffer = io.BytesIO()
        self._book = book = xlsxwriter.Workbook(self._buffer, _OPTIONS)
        book.set_properties({"title": "KMMLU", "comments": "kmmlu_fast.report"})
        head = {"bold": True, "bg_color": "#E8EDF4", "bottom": 1, "text_wrap": True, "valign": "top"}
        self._head = book.add_format(head)
        self._percent = book.add_format({"num_format": "0.00%"})
        self._signed = book.add_format({"num_format": "+0.00%;-0.00%;0.00%"})
        self._p = book.add_format({"num_format": "0.0000"})
        self._count = book.add_format({"num_format": "#,##0"})
        self._strong = book.add_format({"bold": True, "font_color": "#0B5D3E"})

    def to_bytes(self) -> bytes:
        """The file."""
        self._book.close()
        return self._buffer.getvalue()

    def _add_worksheet(self, name: str) -> Any:
        """A sheet that prints on A4, as wide as the page."""
        sheet = self._book.add_worksheet(name)
        sheet.set_paper(_A4)
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        return sheet

    def add_sentences(self, name: str, parts: Sequence[tuple[str, Sequence[str]]]) -> None:
        """A sheet of sentences under their titles."""
        sheet = self._add_worksheet(name)
        wrapped = self._book.add_format({"text_wrap": True, "valign": "top"})
        sheet.set_column(0, 0, _SENTENCE_COLUMNS * 1.05)
        row = 0
        for title, lines in parts:
            sheet.write_string(row, 0, title, self._head)
            for line in lines:
                row += 1
                sheet.write_string(row, 0, line, wrapped)
                # Not every program finds the height of wrapped text by itself.
                sheet.set_row(row, _LINE_POINTS * len(wrap_text(line, _SENTENCE_COLUMNS)))
            row += 2

    def add(self, table: Sheet) -> None:
        """A sheet of its own: cells, a frozen heading with filters, colours, and the chart beside it."""
        sheet = self._add_worksheet(table.name)
        sheet.repeat_rows(0)
        for column, heading in enumerate(table.headings):
            sheet.write_string(0, column, heading, self._head)
        for number, row in enumerate(table.rows, 1):
            for column, value in enumerate(row):
                if isinstance(value, str):
                    sheet.write_string(number, column, value)
                elif value is not None:
                    sheet.write_number(number, column, value, self._cell_format(table, column))
        last = max(1, len(table.rows))
        sheet.freeze_panes(1, 1)
        sheet.autofilter(0, 0, last, len(table.headings) - 1)
        sheet.autofit(260)
        self._add_colours(sheet, table, last)
        if table.chart is not None and table.rows:
            end = min(last, table.charted or last)
            sheet.print_area(0, 0, last, len(table.headings) - 1)  # with the chart, too small to read
            sheet.insert_chart(0, len(table.headings) + 1, self._bar_chart(table, table.chart, end))

    def _cell_format(self, table: Sheet, column: int) -> Any:
        if column in table.signed:
            return self._signed
        if column in table.percent:
            return self._percent
        return self._p if column in table.p_values else self._count

    def _add_colours(self, sheet: Any, table: Sheet, last: int) -> None:
        significant = {"type": "cell", "criteria": "<", "value": 0.05, "format": self._strong}
        for columns, rule in ((table.scale, _SCALE), (table.signed, _BAR), (table.p_values, significant)):
            for column in columns:
                sheet.conditional_format(1, column, last, column, rule)

    def _bar_chart(self, table: Sheet, chart: tuple[int, int], end: int) -> Any:
        names, values = chart
        heading = table.headings[values]
        bars = self._book.add_chart({"type": "bar"})
        bars.add_series(
            {
                "name": heading,
                "categories": [table.name, 1, names, end, names],
                "values": [table.name, 1, values, end, values],
                "fill": {"color": "#2563C9"},
                "invert_if_negative": True,
                "invert_if_negative_color": "#CF4520",
                "gap": 40,
            }
        )
        bars.set_legend({"none": True})
        bars.set_title({"name": heading, "name_font": {"size": 12}})
        bars.set_y_axis({"reverse": True, "label_position": "low", "num_font": {"size": 8}})
        bars.set_x_axis({"num_format": "0%"})
        bars.set_size({"width": 620, "height": max(180, 60 + 18 * end)})
        return bars
