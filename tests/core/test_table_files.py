"""Tables within bounds: too many columns, a file that ends within a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.table_files import read_csv


def test_a_table_of_a_hundred_thousand_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join(f"c{number}" for number in range(100_000)) + "\n")
    with pytest.raises(DataError, match="has 100,000 columns; at most 10,000"):
        read_csv(tmp_path / "x.csv", DataError)


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2,3\n4,5",
        "a,b,c\n1,2,3\n4",
        "a,b,c\n1,2,3\n4,5,",
        'a,b,c\n1,2,"3\nx"\n4,"5\n6"',
        'a,b,c\n"1,\n2",3',
    ],
)
def test_a_table_cut_in_its_last_row_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=r"ends within its last row|the file is cut off there"):
        read_csv(tmp_path / "x.csv", DataError)


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2,3\n4,5,6",
        "a,b,c\n1,2,3\n4,5,\n",
        "a\n1\n2",
        'a,b\n1,"2\n3"',
        "a,b,c",
        "a,b\n1,2\r\n3,4\r\n",
    ],
)
def test_a_whole_table_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode())
    read_csv(tmp_path / "x.csv", DataError)
