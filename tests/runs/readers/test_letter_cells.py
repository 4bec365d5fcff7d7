"""Cells as letters, however they are written; numbers by the whole column."""

from __future__ import annotations

import polars as pl
import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.runs.readers.letter_cells import read_letter_cell, read_letter_column


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *[("B", "B"), ("b", "B"), ("(B)", "B"), ("[b].", "B"), ("B)", "B"), ("**B**", "B"), ("Ｂ", "B")],
        *[("②", "B"), ("⑵", "B"), ("2번", "B"), ("(2) 번", "B"), ("나", "B"), ("나.", "B"), ("㉯", "B")],
        *[("2", "B"), ("2.0", "B"), (" 2. ", "B"), ("ⓑ", "B")],
        *[("답", None), ("AB", None), ("0.2", None), ("B형", None), ("", None), ("정답은 B", None)],
    ],
)
def test_letters_of_cells(text: str, letter: str | None) -> None:
    assert read_letter_cell(text)[0] == letter


def test_a_column_is_read_as_a_whole() -> None:
    column = read_letter_column(pl.Series("m", ["1", "4.0", None, "FILTERED"]), "t", 4)
    assert (column.letters.to_list(), column.kind, column.share) == (["A", "D", None, None], "numbers", 1.0)
    marks = read_letter_column(pl.Series("m", ["①", "(B)", "?", "4번"]), "t", 4)
    assert (marks.letters.to_list(), marks.kind) == (["A", "B", None, "D"], "letters")
    assert read_letter_column(pl.Series("m", ["0.5", "1", "2"]), "t", 4).kind == ""
    codes = pl.Series("score", ["C", "I", "C", "C"])  # correct and incorrect
    assert (
        read_letter_column(codes, "t", 4).kind == "" and read_letter_column(codes, "t", 9).kind == "letters"
    )
    with pytest.raises(DataError, match="row 1: m is 0; give numbers from 1"):
        read_letter_column(pl.Series("m", ["1", "0"]), "t", 4)
    with pytest.raises(DataError, match="has letters and numbers"):
        read_letter_column(pl.Series("m", ["1", "B"]), "t", 4)
