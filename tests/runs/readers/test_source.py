"""A run argument's path and its choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.runs.readers.source import RunSource, split_run_argument


def test_a_path_that_exists_has_no_choice(tmp_path: Path) -> None:
    for name in ("t.csv", "a:b", "folder"):
        (tmp_path / name).mkdir()
    for text, expected in (
        ("t.csv", ("t.csv", None)),
        ("t.csv:m", ("t.csv", "m")),
        ("t.csv:a:b", ("t.csv", "a:b")),
        ("a:b", ("a:b", None)),
        ("a:b:c", ("a:b", "c")),
        ("folder:org/model", ("folder", "org/model")),
        ("folder:", ("folder:", None)),
        ("nothing:m", ("nothing:m", None)),
    ):
        path, choice = split_run_argument(str(tmp_path / text))
        assert (Path(path).name, choice) == expected
    assert split_run_argument("x" * 300 + ":m")[1] is None  # longer than a file name may be


@pytest.mark.parametrize(("text", "fields"), [('{"a": 1}', {"a": 1}), ("[1]", {}), ("{", {})])
def test_json_that_cannot_be_read_has_no_fields(tmp_path: Path, text: str, fields: dict[str, int]) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    assert RunSource(argument="x", path=path).fields == fields
