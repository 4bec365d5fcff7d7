"""Score files: usual names and units, long and wide, and what is missing named."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from score_runs import read_score_run

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.runs.loading import load_run_argument


def shown(path: Path | str, key: pl.DataFrame | None = None) -> list[tuple[str, int, int]]:
    return [(run.name, run.correct, run.total) for run in load_run_argument(str(path), key)]


@pytest.mark.parametrize(
    "text",
    [
        "subject,acc,n\nLaw,0.75,8\nMath,0.5,4\n",
        "Subset,Score,Count\nLaw,75.0,8\nMath,50,4\n",
        "과목,정확도,문항 수\n법학,75%,8\n수학,50%,4\n",
        "subject\tnum_correct\ttotal\nLaw\t6\t8\nMath\t2\t4\nAverage\t8\t12\n",
        "subject;accuracy;total\nLaw;0.75;8\nMath;0.5;4\n",
    ],
)
def test_names_units_and_separators(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.csv"
    if "과목" in text:
        from kmmlu_fast.data.subjects import SUBJECTS

        text = text.replace("법학", SUBJECTS["Law"].korean).replace("수학", SUBJECTS["Math"].korean)
    path.write_text(text, encoding="utf-8")
    assert read_score_run(path).scores["correct"].to_list() == [6, 2]
    notes = " ".join(read_score_run(path).notes)
    assert ("per cent" in notes) == ("75.0" in text or "%" in text)
    assert ("left out: Average" in notes) == ("Average" in text)


def test_long_and_wide_tables_have_a_run_per_model(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("model,subject,accuracy,total\na,Law,0.5,8\nb,Law,0.25,8\n", encoding="utf-8")
    assert shown(path) == [("a", 4, 8), ("b", 2, 8)] and shown(f"{path}:b") == [("b", 2, 8)]
    with pytest.raises(RunError, match="no model 'c'; it holds a, b"):
        load_run_argument(f"{path}:c")
    path.write_text("subject,total,a,b,remark\nLaw,8,50,25,x\nMath,4,100,0,y\n", encoding="utf-8")
    assert shown(path) == [("a", 8, 12), ("b", 2, 12)]
    key = pl.DataFrame({"subject": ["Law"] * 8 + ["Math"] * 4, "answer": ["A"] * 12})
    path.write_text("model,Law,Math,Average\na,50.0,100,75\nb,25.0,0,13\n", encoding="utf-8")
    assert shown(path, key) == [("a", 8, 12), ("b", 2, 12)]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"Law": 0.5, "Math": 0.25}), encoding="utf-8")
    with pytest.raises(DataError, match="not over how many questions; add a column total"):
        load_run_argument(str(path))
    key = pl.DataFrame({"subject": ["Law", "Math"] * 4, "answer": ["A"] * 8})
    assert shown(path, key) == [("s", 3, 8)]
    path.write_text(json.dumps([{"subject": "Law", "accuracy": 175, "total": 4}]), encoding="utf-8")
    with pytest.raises(DataError, match="is not per cent from 0 to 100"):
        load_run_argument(str(path))
    table = tmp_path / "s.csv"
    table.write_text("name,value\nx,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column that names subjects"):
        load_run_argument(str(table))
    table.write_text("subject,correct,total\nLaw,3,4\nMath,1", encoding="utf-8")  # cut
    with pytest.raises(DataError, match="row 1: has 2 of the header's 3 columns; the file is cut off"):
        load_run_argument(str(table))
