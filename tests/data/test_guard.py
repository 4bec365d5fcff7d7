"""The leakage door over tables of any layout and further exams, and what sample refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import write_exam, write_jsonl

from kmmlu_fast import leakage, sample
from kmmlu_fast.data import dataset, overlap
from kmmlu_fast.data.guard import check_table, guard_exams
from kmmlu_fast.data.subjects import find_subjects


def declared(tmp_path: Path) -> Path:
    folder = write_exam(tmp_path / "click", "click", 9)
    path = tmp_path / "five.yaml"
    lines = (
        f"path: {folder / 'train.jsonl'}\nquestion: question\noptions: choices\nanswer: answer\ncoding:"
        " text\n"
    )
    path.write_text(lines, encoding="utf-8")
    return path


def test_leakage_looks_at_any_table_and_any_exam(tmp_path: Path, capsys: Any) -> None:
    exam = declared(tmp_path)
    mine = (
        guard_exams("sample", [str(exam)])
        .frame.filter(pl.col("question_id") == "five/test/3")
        .row(0, named=True)
    )
    options = " ".join(mine[letter] for letter in "ABCDE" if mine[letter])
    rows = [
        {"free": "아무 상관 없는 글입니다. 오늘은 날씨가 맑습니다."},
        {"free": f"앞말 {mine['question']} {options} 뒷말"},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    assert leakage.main([str(tmp_path / "rows.parquet"), "--dataset", "sample"]) == 0
    assert leakage.main([str(tmp_path / "rows.parquet"), "--dataset", "sample", "--exam", str(exam)]) == 1
    assert "row 2 ~ five/test/3" in capsys.readouterr().out


def test_a_table_is_judged_as_its_records_are(tmp_path: Path) -> None:
    target = overlap.guarded("sample")
    questions = dataset.load_questions("sample", "test", find_subjects(["Law"]))[:4]
    rows = [
        (
            {"question": q.question, **dict(zip("ABCD", q.options, strict=True))}
            if i % 2
            else {"text": f"{q.question} {q.options}"}
        )
        for i, q in enumerate(questions)
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", [*rows, {"source_id": "Math/test/3", "text": "x"}])
    pairs, count = check_table(str(path), target)
    assert count == 5 and pairs.sort("train_id", "test_id").equals(
        overlap.check_file(path, "sample").sort("train_id", "test_id")
    )
    assert ("row 5", "Math/test/3", "source") in set(pairs.select("train_id", "test_id", "kind").iter_rows())


@pytest.mark.parametrize(
    ("exam", "said"),
    [
        ("kmmlu-pro", "must not be trained on"),
        ("kmmlu-hard", "training: forbidden"),
        ("click", "CLIcK has no train split to draw from, only what it is measured on (test = its train)"),
    ],
)
def test_sample_refuses_other_exams_and_quotes_the_declaration(
    exam: str, said: str, tmp_path: Path, capsys: Any
) -> None:
    argv = [
        "--exam",
        exam,
        "--strategy",
        "uniform",
        "--out",
        str(tmp_path / "x.jsonl"),
        "--dataset",
        "sample",
    ]
    assert sample.main(argv) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "x.jsonl").exists()
