"""One rule tells how answers are written, for exams and training rows; what fits two ways is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from exam_files import write_jsonl

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.data.answer_coding import CodingEvidence, answer_letter
from kmmlu_fast.data.exam_lookup import find_exam
from kmmlu_fast.data.exam_rows import load_exam
from kmmlu_fast.data.option_cells import OptionCells
from kmmlu_fast.data.training_rows import read_training_rows

METALS = ["구리", "아연", "철", "납"]


def rows_with(answers: list[Any], options: list[Any] | None = None, **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"{i}번째 금속은?", "options": options or METALS, "answer": answer, **more}
        for i, answer in enumerate(answers)
    ]


def exam_letters(path: Path) -> str:
    return "".join(load_exam(find_exam(str(path)), "test")["answer"])


def training_letters(path: Path, **settings: Any) -> str:
    rows = read_training_rows(str(path), **settings)
    return "".join(row.item.question.answer for row in rows if row.item)


@pytest.mark.parametrize(
    ("answers", "letters"),
    [
        (["A", "(c)", "D."], "ACD"),
        (["①", "④", "②"], "ADB"),
        (["가", "라", "나"], "ADB"),
        (["2번", "③", "D"], "BCD"),
        ([0, 3, 1], "ADB"),
        ([1, 4, 2], "ADB"),
        ([1.0, 4.0, 2.0], "ADB"),
        (["1", "4", "2"], "ADB"),
        (["철", "납", "구리"], "CDA"),
        ([1, 4, None, 2], "ADB"),
    ],
)
def test_exam_and_trainer_tell_the_same_coding(answers: list[Any], letters: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "metals.jsonl", rows_with([a for a in answers if a is not None]))
    assert exam_letters(path) == training_letters(path) == letters


@pytest.mark.parametrize(
    ("answers", "options", "fault"),
    [
        ([1, 2, 3], None, "from 1 and from 0 fit the rows equally well ('1' is A or B)"),
        (["1", "2", "4"], ["4", "2", "3", "1"], "from 1 and text fit the rows equally well ('1' is A or D)"),
        (["A", "B"], ["B", "A", "C"], "letter and text fit the rows equally well"),
        ([9, 17, 21], None, "no coding fits the rows"),
        (["금", "은", "구리"], None, "no coding fits the rows"),
    ],
)
def test_what_fits_two_ways_or_none_is_asked_by_both(
    answers: list[Any], options: list[str] | None, fault: str, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "metals.jsonl", rows_with(answers, options))
    with pytest.raises(ConfigError) as exam:
        find_exam(str(path))
    with pytest.raises(ConfigError) as training:
        list(read_training_rows(str(path)))
    assert fault in str(exam.value) and fault in str(training.value)
    assert "coding: from 1" in str(exam.value) and "--answer-coding 'from 1'" in str(training.value)


def test_a_number_is_no_options_text_while_it_can_be_a_place(tmp_path: Path) -> None:
    options = [["5", "1", "2", "3"], ["6", "1", "2", "9"], ["1", "7", "8", "9"]]
    rows = [
        {"question": f"{i}?", "options": texts, "answer": key}
        for i, (texts, key) in enumerate(zip(options, (1, 4, 1), strict=True))
    ]
    path = write_jsonl(tmp_path / "sums.jsonl", rows)
    assert training_letters(path) == exam_letters(path) == "ADA"
    # numbers that are no places are texts
    rows = [
        {"question": f"{i}?", "options": ["12", "15", "18"], "answer": key} for i, key in enumerate((15, 18))
    ]
    assert training_letters(write_jsonl(tmp_path / "texts.jsonl", rows)) == "BC"


def test_the_flag_and_the_tables_own_numbers_settle_it(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "ones.jsonl", rows_with([1, 2, 1]))
    assert training_letters(path, answer_coding="from 1") == "ABA"
    assert training_letters(path, answer_coding="from 0") == "BCB"
    marked = rows_with([1, 2, 1], [f"{i}) {text}" for i, text in enumerate(METALS, 1)])
    assert training_letters(write_jsonl(tmp_path / "marked.jsonl", marked)) == "ABA"
    labelled = rows_with([1, 2, 1], [{"label": i, "text": text} for i, text in enumerate(METALS)])
    assert training_letters(write_jsonl(tmp_path / "labelled.jsonl", labelled)) == "BCB"
    own = {**dict(zip("ABCD", METALS, strict=True)), "Category": "금속", "Human Accuracy": 0.5}
    kmmlu: list[dict[str, Any]] = [{"question": f"{i}?", "answer": 2, **own} for i in range(3)]
    assert training_letters(write_jsonl(tmp_path / "kmmlu.jsonl", kmmlu)) == "BBB"


def test_a_row_without_an_answer_does_not_shift_the_others(tmp_path: Path) -> None:
    """Answers and options are paired row by row: two-option rows must not be taken for the next answer's."""
    rows: list[dict[str, Any]] = [
        {"question": "가?", "options": ["예", "아니오"], "answer": None},
        {"question": "나?", "options": METALS, "answer": 2},
        {"question": "다?", "options": ["예", "아니오"], "answer": 1},
    ]
    with pytest.raises(ConfigError, match="from 1 and from 0 fit"):  # "2" is the count of the first row alone
        find_exam(str(write_jsonl(tmp_path / "gap.jsonl", rows)))


def test_a_few_faulty_answers_do_not_hide_the_coding() -> None:
    evidence = CodingEvidence()
    options = OptionCells(METALS)
    for i in range(40):
        evidence.add_row(i % 4 + 1, options)
    evidence.add_row(7, options)
    assert evidence.decide("x", "say") == "from 1"
    with pytest.raises(DataError, match=r"answer '7' is not allowed; it must be 1 to 4 \(1 = A\)"):
        answer_letter(7, options, "from 1", "x row 41")


def test_hidden_answers_are_named_as_such(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "hidden.jsonl", rows_with([-1, -1, -1]))
    for read in (lambda: find_exam(str(path)), lambda: list(read_training_rows(str(path)))):
        with pytest.raises(DataError, match="every answer is -1: the answers are not public"):
            read()


def test_reading_stops_once_the_coding_is_settled() -> None:
    evidence = CodingEvidence()
    for i in range(999):
        evidence.add_row(i % 4 + 1, OptionCells(METALS))
    assert not evidence.is_settled()
    evidence.add_row(1, OptionCells(METALS))
    assert evidence.is_settled()
