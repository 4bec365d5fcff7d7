"""sft: Alpaca rows out and back, byte for byte as the prompts are; files that are not ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmmlu_fast.core import letters
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data import records
from kmmlu_fast.prompting import prompts

QUESTION = Question(
    question_id="Math/train/3",
    subject="Math",
    supercategory="STEM",
    split="train",
    row=3,
    question=" 식의 값은?\n(단, x = 2)\nA. 는 보기가 아니다 ",
    options=("1 ", "둘\n셋", "3", "④"),
    answer="B",
    human_accuracy=0.4,
)


def test_reorder_moves_the_answer_with_its_option():
    moved = letters.reorder_question(QUESTION, "DCBA")
    assert moved.options == ("④", "3", "둘\n셋", "1 ") and moved.answer == "C"
    assert letters.reorder_question(QUESTION, sft.IDENTITY) == QUESTION


def test_rows_come_back_as_they_went(tmp_path: Path):
    rows = [
        sft.SftRow(
            question=letters.reorder_question(QUESTION, "CABD"),
            strategy="strategic",
            option_order="CABD",
            repeat=1,
        ),
        sft.SftRow(question=QUESTION, strategy="uniform", response="곱하면 4이다.\n정답: B"),
    ]
    path = tmp_path / "sub" / "sft.jsonl"
    sft.write_sft_rows(path, rows)
    back = sft.read_sft_rows(path)
    assert [(r.strategy, r.option_order, r.repeat, r.response) for r in back] == [
        ("strategic", "CABD", 1, None),
        ("uniform", "ABCD", 0, "곱하면 4이다.\n정답: B"),
    ]
    for row, same in zip(rows, back, strict=True):
        assert same.question.options == row.question.options and same.question.answer == row.question.answer
        assert (same.question.question_id, same.question.split, same.question.row) == (
            "Math/train/3",
            "train",
            3,
        )


@pytest.mark.parametrize("style", ["lm-eval", "qa"])
def test_training_renders_evaluations_very_bytes(tmp_path: Path, style: str):
    path = tmp_path / "sft.jsonl"
    sft.write_sft_rows(path, [sft.SftRow(question=QUESTION, strategy="uniform")])
    (row,) = sft.read_sft_rows(path)
    assert prompts.render_prompt(row.question, [], style) == prompts.render_prompt(QUESTION, [], style)


def test_alpaca_fields_golden(tmp_path: Path):
    path = tmp_path / "sft.jsonl"
    question = Question(
        question_id="Law/train/0",
        subject="Law",
        supercategory="HUMSS",
        split="train",
        row=0,
        question="옳은 것은?",
        options=("가", "나", "다", "라"),
        answer="D",
    )
    sft.write_sft_rows(path, [sft.SftRow(question=question, strategy="strategic")])
    text = path.read_text(encoding="utf-8")
    assert "옳은 것은?" in text and "\\u" not in text and text.endswith("}\n")
    assert json.loads(text) == {
        "instruction": "다음 객관식 문제를 읽고 A, B, C, D 중 정답을 고르시오.",
        "input": "옳은 것은?\nA. 가\nB. 나\nC. 다\nD. 라",
        "output": "D",
        "answer": "D",
        "subject": "Law",
        "source_id": "Law/train/0",
        "strategy": "strategic",
        "option_order": "ABCD",
        "repeat": 0,
        "rationale": "none",
    }


def test_datasets_loads_it(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "sft.jsonl"
    sft.write_sft_rows(
        path,
        [
            sft.SftRow(question=QUESTION, strategy="uniform"),
            sft.SftRow(question=QUESTION, strategy="uniform", response="풀이\n정답: B"),
        ],
    )
    loaded = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(loaded) == 2 and set(loaded.column_names) >= {
        "instruction",
        "input",
        "output",
        "subject",
        "source_id",
        "strategy",
    }
    assert loaded[1]["output"] == "풀이\n정답: B"


def test_a_question_that_cannot_be_told_from_its_options_is_refused(tmp_path: Path):
    bad = Question(
        question_id="Math/train/4",
        subject="Math",
        supercategory="STEM",
        split="train",
        row=4,
        question="물음",
        options=("가\nB. 나", "다\nC. 라", "마\nD. 바", "사\nA. x\nB. x\nC. x\nD. x"),
        answer="A",
    )
    with pytest.raises(DataError, match="Math/train/4"):
        sft.write_sft_rows(tmp_path / "x.jsonl", [sft.SftRow(question=bad, strategy="uniform")])
    assert not (tmp_path / "x.jsonl").exists()


GOOD = {
    "input": "옳은 것은?\nA. 가\nB. 나\nC. 다\nD. 라",
    "output": "A",
    "subject": "Law",
    "source_id": "Law/train/0",
    "strategy": "uniform",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": None}, "row 2: lacks strategy"),
        ({"input": "옳은 것은?"}, "row 2: input is not a question and four lines"),
        ({"source_id": "Cooking/train/0"}, "row 2: source_id 'Cooking/train/0'"),
        ({"output": "E"}, "row 2: answer 'E' is not A, B, C or D"),
        ({"option_order": "AABC"}, "row 2: option_order 'AABC'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict, message: str):
    path = tmp_path / "sft.jsonl"
    path.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in (GOOD, GOOD | change)), encoding="utf-8"
    )
    with pytest.raises(DataError) as raised:
        sft.read_sft_rows(path)
    assert message in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_json_list_bom_and_line_separators_are_read(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([GOOD, GOOD]), encoding="utf-8-sig")
    assert len(records.read_records(path)) == 2
    path.write_text(json.dumps(GOOD | {"input": "한\u2028줄"}, ensure_ascii=False), encoding="utf-8")
    assert records.read_records(path)[0]["input"] == "한\u2028줄"


def test_missing_and_binary_files_are_one_line(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        records.read_records(tmp_path / "absent.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        records.read_records(tmp_path / "b.jsonl")


def test_letters_of_the_row_are_the_answer():
    for letter in LETTERS:
        order = {"A": "BACD", "B": "ABCD", "C": "ACBD", "D": "ACDB"}[letter]
        assert (
            sft.sft_row_to_record(
                sft.SftRow(
                    question=letters.reorder_question(QUESTION, order), strategy="uniform", option_order=order
                )
            )["output"]
            == letter
        )
