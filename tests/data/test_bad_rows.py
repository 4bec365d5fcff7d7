"""Bad rows: counted by reason, the first ten named in one go, refused or left out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from exam_files import write_jsonl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.bad_rows import BadRows, describe_reason
from kmmlu_fast.data.mixture import MixtureSource, read_mixture
from kmmlu_fast.data.training_rows import read_training_rows

GOOD = {"instruction": "가", "output": "나"}
EMPTY = {"instruction": "가", "output": " "}
ROLE = {"messages": [{"role": "cat", "content": "야옹"}]}


def test_one_bad_row_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD, EMPTY, GOOD])
    with pytest.raises(DataError) as caught:
        list(read_training_rows(str(path)))
    assert str(caught.value) == (
        f"{path} row 2: output is empty; the other 2 rows are fine: correct it, or leave it out with"
        " --bad-rows drop"
    )


def test_many_are_counted_by_reason_and_ten_are_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD, *[EMPTY] * 12, ROLE, GOOD])
    with pytest.raises(DataError) as caught:
        list(read_training_rows(str(path)))
    text = str(caught.value)
    assert (
        "13 of 15 rows cannot be used (output is empty: 12, message … has role …: 1): row 2, row 3," in text
    )
    assert "row 11 and 3 more; such as" in text and "row 14: message 1 has role 'cat'" in text
    assert text.endswith("leave them out with --bad-rows drop") and "\n" not in text


def test_left_out_rows_are_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [GOOD, EMPTY, {**GOOD, "instruction": "다"}])
    path.write_text(path.read_text(encoding="utf-8") + '{"broken": \n', encoding="utf-8")
    with caplog.at_level(logging.INFO, logger="kmmlu_fast"):
        rows, (share,) = read_mixture([MixtureSource(str(path))], 1, bad_rows="drop")
    assert [row.number for row in rows] == [1, 3] and share.rows == 2 and share.left_out.total() == 2
    assert "2 of 4 rows left out (output is empty: 1, is not valid JSON" in caplog.text
    assert "row 2, row 4" in caplog.text


@pytest.mark.parametrize("policy", ["refuse", "drop"])
def test_a_file_without_a_good_row_gives_the_first_reason(policy: Any, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"words": "x"}] * 3)
    with pytest.raises(DataError, match=r"row 1: is none of the known forms .*all of the 3 rows likewise"):
        list(read_training_rows(str(path), bad_rows=BadRows(source=str(path), policy=policy)))


def test_a_hopeless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"words": "x"}] * 5000)
    bad = BadRows(source=str(path))
    with pytest.raises(DataError, match="none of the known forms"):
        list(read_training_rows(str(path), bad_rows=bad))
    assert bad.rows == 1000


def test_reasons_leave_out_rows_and_values() -> None:
    assert (
        describe_reason("a b.jsonl row 12: answer 'Z' is not allowed; it must be A")
        == "answer … is not allowed"
    )
    assert describe_reason("x row 3: has 7 options; 2 to 10 are possible") == "has … options"
