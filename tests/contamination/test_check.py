"""The leakage door over tables of any layout and further exams, and what sample refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import write_exam, write_jsonl

from kmmlu_fast import leakage, sample
from kmmlu_fast.contamination import check, overlap
from kmmlu_fast.contamination.check import find_table_overlap, find_training_overlap, load_guarded_exams
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.data.training_rows import read_training_rows


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
        load_guarded_exams("sample", [str(exam)])
        .frame.filter(pl.col("question_id") == "five/test/3")
        .row(0, named=True)
    )
    options = " ".join(mine[letter] for letter in "ABCDE" if mine[letter])
    rows = [
        {"free": "아무 상관 없는 글입니다. 오늘은 날씨가 맑습니다."},
        {"free": f"앞말 {mine['question']} {options} 뒷말"},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    assert leakage.run_leakage_command([str(tmp_path / "rows.parquet"), "--dataset", "sample"]) == 0
    assert (
        leakage.run_leakage_command(
            [str(tmp_path / "rows.parquet"), "--dataset", "sample", "--exam", str(exam)]
        )
        == 1
    )
    assert "row 2 ~ five/test/3" in capsys.readouterr().out


def test_a_table_is_judged_as_its_records_are(tmp_path: Path) -> None:
    target = overlap.load_guarded_split("sample")
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
    pairs, count = find_table_overlap(str(path), target)
    assert count == 5 and pairs.sort("train_id", "test_id").equals(
        overlap.find_file_overlap(path, "sample").sort("train_id", "test_id")
    )
    assert ("row 5", "Math/test/3", "source") in set(pairs.select("train_id", "test_id", "kind").iter_rows())


KMMLU = Path(__file__).resolve().parents[3] / "shared" / "kmmlu"
TURNS = (
    ("user", "안녕하세요, 어제 산책하다가 본 것을 이야기해도 될까요?"),
    ("assistant", "그럼요, 천천히 들려주세요. 저는 듣고 있겠습니다."),
    ("user", "친구가 쪽지를 주었는데 거기에 이렇게 적혀 있었어요. {quoted} 그러고는 웃기만 하더군요."),
    ("assistant", "재미있는 친구네요. 저녁에 다시 만나면 왜 웃었는지 물어보세요."),
    ("user", "네, 그럴게요. 오늘 날씨는 어떤가요?"),
    ("assistant", "맑고 바람이 조금 붑니다. 겉옷을 챙기세요."),
)


@pytest.mark.parametrize("source", ["sample", str(KMMLU)])
def test_a_test_question_quoted_in_the_middle_of_a_chat_is_found(source: str, tmp_path: Path) -> None:
    """Forty questions in the wording of a chat, by their texts; the same chats without them are clean."""
    if source != "sample" and not KMMLU.is_dir():
        pytest.skip("../shared/kmmlu is absent")
    target = load_guarded_exams(source, []).frame
    test = target.filter(pl.col("split") == "test")
    every = test.gather_every(len(test) // 40).head(40)
    quotes = [
        " ".join([row["question"], *(f"{place}) {row[letter]}" for place, letter in enumerate("ABCD", 1))])
        for row in every.iter_rows(named=True)
    ]
    chats = [
        {"messages": [{"role": role, "content": text.format(quoted=quote)} for role, text in TURNS]}
        for quote in ["", *quotes]
    ]
    path = write_jsonl(tmp_path / "chats.jsonl", chats)
    pairs = find_training_overlap(read_training_rows(str(path)), target)
    found = set(pairs.select("train_id", "test_id").iter_rows())
    wanted = {(f"{path} row {row}", name) for row, name in enumerate(every["question_id"], 2)}
    assert len(every) == 40 and wanted <= found and f"{path} row 1" not in pairs["train_id"]
    assert set(pairs["kind"]) == {"contained"}


def test_rows_of_a_piece_and_of_several_are_judged_alike(tmp_path: Path, monkeypatch: Any) -> None:
    target = overlap.load_guarded_split("sample")
    rows = []
    for place, row in enumerate(target.gather_every(7).iter_rows(named=True)):
        options = {letter: row[letter] for letter in "ABCD"}
        rows.append(
            {"text": f"앞말 {row['question']} {options} 뒷말"} if place % 2 else row | {"answer": "A"}
        )
        rows.append({"text": "아무 상관 없는 글입니다."})
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    whole, count = find_table_overlap(str(path), target)
    monkeypatch.setattr(check, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(check, "CHARS_AT_ONCE", 300)
    pieces, again = find_table_overlap(str(path), target)
    assert count == again == len(rows) and len(whole) > 10 and pieces.equals(whole)
    assert {"contained", "exact"} <= set(whole["kind"])


@pytest.mark.parametrize(
    ("exam", "said"),
    [
        ("kmmlu-pro", "must not be trained on"),
        ("kmmlu-hard", "training: forbidden"),
        ("click", "CLIcK has no train split to draw from, only test = its train"),
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
    assert sample.run_sample_command(argv) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "x.jsonl").exists()
