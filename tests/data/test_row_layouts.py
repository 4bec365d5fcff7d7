"""Layouts by their columns, system and history, columns that are read, harmless, named, or refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exam_files import write_jsonl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.mixture import MixtureSource, mixture_lines, read_mixture
from kmmlu_fast.data.row_columns import media_columns
from kmmlu_fast.data.training_rows import TrainingRow, _build_row, parse_columns, read_training_rows

CHAT = [{"role": "user", "content": "차?"}, {"role": "assistant", "content": "홍차."}]
SYSTEM = "다도 선생이다."


def one(row: dict[str, Any]) -> TrainingRow:
    return _build_row(row, "rows.jsonl", 1, None)[0]


def said(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in one(row).turns]


@pytest.mark.parametrize(
    "row",
    [
        {"system_prompt": SYSTEM, "question": "차?", "response": "홍차."},
        {"system": SYSTEM, "instruction": "차?", "output": "홍차.", "input": float("nan")},
        {"system": SYSTEM, "query": "차?", "response": "홍차."},
        {"system": SYSTEM, "messages": CHAT},
        {"system": SYSTEM, "messages": [{"role": "system", "content": SYSTEM}, *CHAT]},
        {"system": SYSTEM, "prompt": "차?", "completion": CHAT[1:]},
        {"system": SYSTEM, "prompt": CHAT[:1], "completion": "홍차."},
        {"prompt": [{"role": "developer", "content": SYSTEM}, *CHAT[:1]], "response": "홍차."},
        {"conversation": [{"system": SYSTEM, "input": "차?", "output": "홍차."}]},
        {"messages": json.dumps([{"role": "system", "content": SYSTEM}, *CHAT])},
    ],
)
def test_one_conversation_in_many_layouts(row: dict[str, Any]) -> None:
    assert said(row) == [("system", SYSTEM), ("user", "차?"), ("assistant", "홍차.")]


def test_what_stands_behind_or_before_the_request() -> None:
    dolly = {"instruction": "요약하세요.", "context": "긴 글", "response": "짧은 글", "category": "summary"}
    assert said(dolly)[0] == ("user", "요약하세요.\n\n긴 글")
    assert said({"question": "무엇?", "context": "지문", "answer": "답"})[0] == ("user", "지문\n\n무엇?")


@pytest.mark.parametrize(
    "history",
    [
        [["물?", "보리차."]],
        json.dumps([["물?", "보리차."]]),
        [{"role": "user", "content": "물?"}, {"role": "assistant", "content": "보리차."}],
    ],
)
def test_a_history_stands_before_the_request_and_after_the_system_text(history: Any) -> None:
    row = {"instruction": "차?", "output": "홍차.", "history": history, "system": SYSTEM}
    assert said(row) == [
        ("system", SYSTEM),
        ("user", "물?"),
        ("assistant", "보리차."),
        ("user", "차?"),
        ("assistant", "홍차."),
    ]
    assert said({"instruction": "차?", "output": "홍차.", "history": []})[0] == ("user", "차?")


def test_other_columns_of_the_answer_count_only_where_nothing_else_fits() -> None:
    magpie = {"conversations": CHAT, "instruction": "차?", "response": "홍차."}
    code = {"instruction": "차?", "input": "", "output": "홍차.", "prompt": "### 차?"}
    ultrachat = {"prompt": "차?", "messages": CHAT}
    assert [one(row).form for row in (magpie, code, ultrachat)] == ["sharegpt", "alpaca", "messages"]
    assert one({"instruction": "차?", "answer": "홍차."}).form == "alpaca"
    assert one({"prompt": "차?", "output": "홍차."}).form == "prompt"


def test_a_text_is_a_document_only_where_nothing_else_fits() -> None:
    assert one({"text": "긴 글 하나."}).document == "긴 글 하나."
    both = one({"instruction": "차?", "output": "홍차.", "text": "### 차? ### 홍차."})
    assert both.form == "alpaca" and both.document is None and both.other_text == "### 차? ### 홍차."


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"prompt": "가", "chosen": "나", "rejected": "다"}, "is preference data (chosen, rejected)"),
        ({"messages": CHAT, "rejected": "나빠"}, "is preference data (rejected)"),
        ({"messages": CHAT, "images": ["a.png"]}, "has images, which is not trained here"),
        (
            {"instruction": "가", "output": "나", "image": {"bytes": None, "path": "a.png"}},
            "has image, which",
        ),
        ({"prompt": "가", "completion": "나", "label": False}, "has a label that is true or false, as KTO"),
        ({"messages": CHAT, "weight": 0.2}, "has weight, which changes what is trained"),
        (
            {"system": "가", "messages": [{"role": "system", "content": "나"}, *CHAT]},
            "system message besides",
        ),
        ({"instruction": "가", "output": "나", "question": "다", "answer": "라"}, "could be alpaca or qa"),
        ({"question": "가?", "options": ["나"], "answer": "A"}, "has 1 options"),
        ({"instruction": "가", "output": "나", "tools": "clock"}, "tools is str"),
        ({"text": 3}, "text is int, not text"),
    ],
)
def test_what_changes_the_lesson_and_is_not_read_is_refused(row: dict[str, Any], fault: str) -> None:
    with pytest.raises(DataError) as caught:
        one(row)
    assert str(caught.value).startswith("rows.jsonl row 1: ") and fault in str(caught.value)


def test_harmless_columns_pass_and_the_rest_is_named_once(tmp_path: Path) -> None:
    harmless = {
        "id": 1,
        "source_url": "u",
        "conversation_id": "c",
        "lang": "ko",
        "Category": "x",
        "weight": 1,
    }
    rows = [{"messages": CHAT, **harmless, "hint": "h" if i else None, "images": []} for i in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    taken, shares = read_mixture([MixtureSource(str(path))], 1)
    assert len(taken) == 3 and shares[0].unread == {"hint": 2}
    assert mixture_lines(shares)[-1] == f"{path}: not read: hint (2 rows)"


def test_columns_by_name_take_system_and_history_and_name_the_rest(tmp_path: Path) -> None:
    row = {"지시": SYSTEM, "물음": "차?", "답": "홍차.", "번호": 7, "chosen": "x"}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    columns = parse_columns(["instruction=물음", "output=답", "system=지시"])
    unread: Counter[str] = Counter()
    (found,) = read_training_rows(str(path), columns, unread=unread)
    assert [turn.role for turn in found.turns] == ["system", "user", "assistant"]
    assert unread == {"번호": 1, "chosen": 1}
    assert set(parse_columns(["history=h", "tools=t", "text=x"])) == {"history", "tools", "text"}


def test_media_columns_are_told_by_name_and_content() -> None:
    row = {"image": None, "image_2": {"path": "x"}, "question_images": [], "audio": "a.wav", "imagery": "x"}
    assert media_columns(row) == ("image_2", "audio")
