"""Everybody's training rows: every form, every file type, mixtures, and refusals with file and row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import write_jsonl

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.data.mixture import (
    MixtureSource,
    draw_count,
    mixture_lines,
    parse_mixture_source,
    read_mixture,
)
from kmmlu_fast.data.training_rows import TrainingRow, Turn, parse_columns, read_training_rows

ALPACA = {"instruction": "더하세요.", "input": "1과 2", "output": "3"}
CHAT = {
    "messages": [
        {"role": "system", "content": "짧게."},
        {"role": "user", "content": "안녕?"},
        {"role": "assistant", "content": "네."},
    ]
}
SHARED = {"conversations": [{"from": "human", "value": "하나?"}, {"from": "gpt", "value": "둘."}]}
PROMPT = {"prompt": "물", "completion": "H2O"}
EXAM = {"question": "1+1?", "options": ["1", "2", "3"], "answer": "B", "explanation": "하나에 하나를 더한다."}
OURS = {
    "instruction": "x",
    "input": "물음\nA. 1\nB. 2\nC. 3\nD. 4",
    "output": "B",
    "subject": "Math",
    "source_id": "Math/train/3",
    "strategy": "uniform",
}


def rows_of(path: Path, **columns: str) -> list[TrainingRow]:
    return list(read_training_rows(str(path), columns))


def said(row: TrainingRow) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in row.turns]


def test_every_form_is_told_by_its_columns(tmp_path: Path) -> None:
    rows = rows_of(write_jsonl(tmp_path / "all.jsonl", [ALPACA, CHAT, SHARED, PROMPT, EXAM, OURS]))
    assert [row.form for row in rows] == ["alpaca", "messages", "sharegpt", "prompt", "exam", "ours"]
    assert said(rows[0]) == [("user", "더하세요.\n\n1과 2"), ("assistant", "3")]
    assert rows[1].turns == (Turn("system", "짧게."), Turn("user", "안녕?"), Turn("assistant", "네."))
    assert said(rows[2]) == [("user", "하나?"), ("assistant", "둘.")]
    assert said(rows[3]) == [("user", "물"), ("assistant", "H2O")]
    exam, ours = rows[4].item, rows[5].item
    assert exam and exam.question.options == ("1", "2", "3") and exam.question.answer == "B"
    assert rows[4].explanation == "하나에 하나를 더한다." and "하나에 하나" in rows[4].text
    assert ours and ours.question.question_id == "Math/train/3" and rows[5].number == 6


def test_prompt_and_completion_may_be_messages(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "가"}],
        "completion": [{"role": "assistant", "content": "나"}],
    }
    assert said(rows_of(write_jsonl(tmp_path / "a.jsonl", [row]))[0]) == [("user", "가"), ("assistant", "나")]


def test_the_same_rows_out_of_every_kind_of_file(tmp_path: Path) -> None:
    data = [ALPACA, {**ALPACA, "input": ""}]
    write_jsonl(tmp_path / "a.jsonl", data)
    (tmp_path / "b.json").write_text(json.dumps(data), encoding="utf-8")
    (tmp_path / "c.json").write_text(json.dumps({"version": 1, "data": data}), encoding="utf-8")
    pl.DataFrame(data).write_parquet(tmp_path / "d.parquet")
    with (tmp_path / "e.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(ALPACA))
        writer.writeheader()
        writer.writerows(data)
    wanted = [
        [("user", "더하세요.\n\n1과 2"), ("assistant", "3")],
        [("user", "더하세요."), ("assistant", "3")],
    ]
    for name in ("a.jsonl", "b.json", "c.json", "d.parquet", "e.csv"):
        assert [said(row) for row in rows_of(tmp_path / name)] == wanted, name


def test_chat_rows_out_of_parquet(tmp_path: Path) -> None:
    pl.DataFrame([CHAT, CHAT]).write_parquet(tmp_path / "chat.parquet")
    assert [said(row)[-1] for row in rows_of(tmp_path / "chat.parquet")] == [("assistant", "네.")] * 2


def test_columns_with_other_names(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "ko.jsonl", [{"질문": "가?", "답": "나.", "출처": "x"}])
    with pytest.raises(
        DataError, match=r"ko\.jsonl row 1: is none of the known forms .*has 질문, 답, 출처.*--columns"
    ):
        rows_of(path)
    assert said(rows_of(path, instruction="질문", output="답")[0]) == [("user", "가?"), ("assistant", "나.")]
    assert parse_columns(["instruction=질문", "output=답"]) == {"instruction": "질문", "output": "답"}
    with pytest.raises(ConfigError, match="write OUR=THEIRS"):
        parse_columns(["question:질문"])
    with pytest.raises(DataError, match="has no column '물음', which --columns names"):
        rows_of(path, instruction="물음", output="답")


def _messages(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({**CHAT, **PROMPT}, "could be messages or prompt"),
        ({"words": "x"}, "none of the known forms"),
        ({**ALPACA, "output": " "}, "output is empty"),
        ({**ALPACA, "output": 3}, "output is int, not text"),
        (_messages(("user", "x"), ("robot", "y")), "message 2 has role 'robot'"),
        (_messages(("user", "x"), ("tool", "y")), "must alternate"),
        (_messages(("user", "x"), ("assistant", None)), "message 2 is empty"),
        (_messages(("user", "x")), "ends with the user's message"),
        (_messages(("assistant", "x")), "must alternate, the user first"),
        (_messages(("user", "x"), ("user", "y"), ("assistant", "z")), "must alternate"),
        (_messages(("user", "x"), ("system", "y"), ("assistant", "z")), "system message after the first"),
        ({"messages": []}, "not a list of {role, content}"),
        ({"question": "?", "options": ["1", "2"], "answer": "C"}, "must be one of A, B"),
        ({**OURS, "source_id": "Nonsense/train/1"}, "is not <Subject>/<split>/<row>"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_row(row: dict[str, Any], fault: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [ALPACA, row])
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert f"{path} row 2: " in str(caught.value) and fault in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    bad = tmp_path / "x.jsonl"
    bad.write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"none of the known forms"):
        rows_of(bad)
    bad.write_text(json.dumps(ALPACA) + '\n{"a": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl row 2: is not valid JSON"):
        rows_of(bad)
    bad.write_bytes(json.dumps(ALPACA).encode() + b"\n\xff\n")
    with pytest.raises(DataError, match="row 2: is not UTF-8"):
        rows_of(bad)
    ragged = tmp_path / "x.csv"
    ragged.write_text("instruction,output\n가,나\n다\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2: does not have the header's 2 columns"):
        rows_of(ragged)
    empty = tmp_path / "e.jsonl"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="has no rows"):
        rows_of(empty)
    with pytest.raises(DataError, match="unknown extension"):
        rows_of(_touch(tmp_path / "x.docx"))


def _touch(path: Path) -> Path:
    path.touch()
    return path


def test_a_mixture_is_drawn_by_weights_and_seed_and_is_told(tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [{"prompt": f"가{i}", "completion": "x"} for i in range(400)])
    two = write_jsonl(
        tmp_path / "two.jsonl", [{"instruction": f"나{i}", "output": "y"} for i in range(400)] + [ALPACA] * 2
    )
    parts = [parse_mixture_source(str(one)), parse_mixture_source(f"{two}:0.25")]
    assert parts == [MixtureSource(str(one)), MixtureSource(str(two), 0.25)]
    rows, shares = read_mixture(parts, 1)
    again, _ = read_mixture(parts, 1)
    other, _ = read_mixture(parts, 2)
    assert rows == again and rows != other and len(rows) == shares[0].taken + shares[1].taken
    assert (
        shares[0].taken == 400
        and 70 <= shares[1].taken <= 130
        and shares[1].rows == 402
        and shares[1].duplicates == 1
    )
    assert [draw_count(2.5, 1, "a", n) in (2, 3) for n in range(50)] == [True] * 50
    assert sum(draw_count(2.5, 1, "a", n) for n in range(2000)) == pytest.approx(5000, abs=100)
    lines = mixture_lines(shares)
    assert lines[0].split() == ["source", "form", "rows", "weight", "taken", "share", "duplicates"]
    assert "two.jsonl" in lines[2] and "alpaca" in lines[2] and "0.25" in lines[2]


def test_faults_of_a_source(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "one.jsonl", [PROMPT])
    for text, fault in (
        (f"{path}:x", "is not a weight"),
        (f"{path}:0", "above 0"),
        ("none.jsonl", "no such file"),
    ):
        with pytest.raises(ConfigError, match=fault):
            parse_mixture_source(text)
