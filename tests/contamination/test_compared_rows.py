"""Guard and trainer compare the same parts of a row, whatever its layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from exam_files import write_jsonl

from kmmlu_fast.contamination.check import find_table_overlap, find_training_overlap
from kmmlu_fast.contamination.compared_rows import compare_record, compare_training_row
from kmmlu_fast.contamination.overlap import load_guarded_split
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.data.training_rows import read_training_rows

QUESTION = dataset.load_questions("sample", "test", find_subjects(["Law"]))[0]
CHAT = [{"role": "user", "content": "안녕하세요?"}, {"role": "assistant", "content": "네, 안녕하세요."}]
TEXT = "\n".join([QUESTION.question, *(f"{i}) {text}" for i, text in enumerate(QUESTION.options, 1))])


def quoting(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, CHAT[1]]}


LEAKS: dict[str, dict[str, Any]] = {
    "JSON text": {"messages": json.dumps(quoting(TEXT)["messages"])},
    "Python text": {"messages": str(quoting(TEXT)["messages"])},
    "history": {"instruction": "다음은?", "output": "네.", "history": [[TEXT, "A"]]},
    "system": {"system": TEXT, "messages": CHAT},
    "a thought": {"messages": [CHAT[0], {**CHAT[1], "reasoning_content": TEXT}]},
    "a tool's arguments": {
        "messages": [
            CHAT[0],
            {**CHAT[1], "tool_calls": [{"function": {"name": "f", "arguments": {"q": TEXT}}}]},
        ]
    },
    "a masked turn": {
        "messages": [*CHAT, CHAT[0], {"role": "assistant", "content": TEXT, "weight": 0}, *CHAT]
    },
    "a document": {"text": f"앞말 {TEXT} 뒷말"},
    "a column that is not read": {"messages": CHAT, "original_question": TEXT},
    "nested": {"messages": CHAT, "metadata": {"from": {"item": TEXT}}},
    "options as objects": {
        "question": QUESTION.question,
        "options": [{"label": c, "text": t} for c, t in zip("ABCD", QUESTION.options, strict=True)],
        "answer": "A",
    },
    "marked options": {
        "question": QUESTION.question,
        "options": [f"{c}. {t}" for c, t in zip("ABCD", QUESTION.options, strict=True)],
        "answer": "A",
    },
    "an explanation": {"question": "뭐?", "options": ["가", "나"], "answer": "A", "explanation": TEXT},
}


@pytest.mark.parametrize("name", LEAKS)
def test_guard_and_trainer_find_the_same_leak(name: str, tmp_path: Path) -> None:
    clean = {"text": "관계없는 글"} if "text" in LEAKS[name] else {"messages": CHAT}
    path = write_jsonl(tmp_path / "rows.jsonl", [clean, LEAKS[name]])
    target = load_guarded_split("sample")
    table, count = find_table_overlap(str(path), target)
    trained = find_training_overlap(read_training_rows(str(path)), target)
    wanted = {("2", QUESTION.question_id)}
    assert count == 2
    for pairs in (table, trained):
        found = {
            (row.rsplit(" ", 1)[1], test) for row, test in pairs.select("train_id", "test_id").iter_rows()
        }
        assert found == wanted, name


def test_the_parts_of_a_question_are_compared_as_options_not_as_text() -> None:
    row = {
        "question": "가?",
        "choices": {"text": ["나", "다"], "label": ["A", "B"]},
        "answer": "B",
        "note": "라",
    }
    compared = compare_record(row, "row 1")
    assert compared.item == ("가?", "나", "다") and compared.text == "B\n라"
    assert compared.length == 2 + 1 + 1 + 3


def test_a_claimed_test_question_is_named(tmp_path: Path) -> None:
    row = {
        "instruction": "x",
        "input": "물음\nA. 1\nB. 2\nC. 3\nD. 4",
        "output": "B",
        "subject": "Math",
        "source_id": "Math/test/3",
        "strategy": "uniform",
    }
    (training_row,) = read_training_rows(str(write_jsonl(tmp_path / "a.jsonl", [row])))
    assert compare_training_row(training_row).claims == compare_record(row, "row 1").claims == "Math/test/3"
