"""Tables that take the columns that fit."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kmmlu_fast.reporting.terminal.screens import print_fitted_table
from kmmlu_fast.reporting.terminal.tables import _new_table, text_cells

HEADINGS = ("questions", "first", "second", "difference", "95 % interval", "p (Holm)", "p (BH)")


@pytest.mark.parametrize("width", range(34, 110, 3))
def test_no_heading_is_cut_at_any_width(width: int) -> None:
    table = _new_table("Subjects", *HEADINGS)
    table.add_row(*text_cells("Law", "1,000", "31.0", "35.0", "+4.12*", "+3.1 … +5.2", "< 0.001", "< 0.001"))
    out = io.StringIO()
    print_fitted_table(Console(file=out, width=width), table, 4, 5, 6)
    heading, row = (line for line in out.getvalue().splitlines() if line.strip())
    assert "…" not in heading and len(heading) <= width
    assert "difference" in heading or width < 40
    assert (row.count("< 0.001") == 2) == ("p (BH)" in heading)
