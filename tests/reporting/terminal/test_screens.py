"""Tables that take the columns that fit."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kmmlu_fast.compare import run_compare_command
from kmmlu_fast.reporting.terminal.screens import _print_indented, print_fitted_table
from kmmlu_fast.reporting.terminal.tables import _new_table, text_cells

HEADINGS = ("questions", "first", "second", "difference", "95 % interval", "p (Holm)", "p (BH)")


@pytest.mark.parametrize("width", range(34, 110, 3))
def test_no_heading_is_cut_at_any_width(width: int) -> None:
    table = _new_table("Subjects", *HEADINGS)
    table.add_row(*text_cells("Law", "1,000", "31.0", "35.0", "+4.12*", "+3.1 … +5.2", "< 0.001", "< 0.001"))
    out = io.StringIO()
    shown = print_fitted_table(Console(file=out, width=width), table, 4, 5, 6)
    assert ("p (BH)" in shown) == ("p (BH)" in out.getvalue())
    heading, row = (line for line in out.getvalue().splitlines() if line.strip())
    assert "…" not in heading and len(heading) <= width
    assert "difference" in heading or width < 40
    assert (row.count("< 0.001") == 2) == ("p (BH)" in heading)


@pytest.mark.parametrize(("width", "explained"), [(100, False), (160, True)])
def test_footnotes_explain_the_columns_that_are_shown(
    width: int, explained: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run_compare_command(["published:phi-3-mini", "published:phi-3.5-mini"]) == 0
    out = capsys.readouterr().out
    assert ("detectable: smallest true change" in out) == ("  detectable\n" in out) == explained
    assert "b, c: only the first" in out


def test_wrapped_sentences_keep_their_indent() -> None:
    out = io.StringIO()
    console = Console(file=out, width=30, force_terminal=True, color_system=None)
    _print_indented(console, "eleven subjects went up significantly after correction", 4)
    rows = out.getvalue().splitlines()
    assert len(rows) > 1 and all(row.startswith("    ") and row[4] != " " for row in rows)
    assert all(len(row) <= 30 for row in rows)
