"""Declarations and their rows: every shipped schema loads, and what is wrong is named with file, row and
column."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from exam_files import ROWS, count_of, options_of, right, write_exam, write_jsonl

from kmmlu_fast import exams
from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.data.exam import Exam, read_exam
from kmmlu_fast.data.exam_lookup import SHIPPED, find_exam, shipped_exam_names
from kmmlu_fast.data.exam_rows import (
    choose_subjects,
    load_exam,
    questions_from_frame,
    read_exam_frame,
    read_questions,
)
from kmmlu_fast.data.hub_rows import explain_hub_error
from kmmlu_fast.data.inline_options import split_inline_options

WANTED = [
    "click",
    "csatqa",
    "global-mmlu-ko",
    "haerae",
    "kbl",
    "kmmlu",
    "kmmlu-hard",
    "kmmlu-pro",
    "kmmlu-redux",
    "kobalt",
    "kobest",
    "kormedmcqa",
]


def own(tmp_path: Path, **changes: object) -> Exam:
    settings = {
        "question": "q",
        "options": ["A", "B", "C"],
        "answer": "a",
        "coding": "from 1",
        "path": "rows.jsonl",
        **changes,
    }
    return Exam(name="own", folder=tmp_path, **settings)


def test_what_is_shipped_is_what_was_promised_and_is_short() -> None:
    assert sorted(shipped_exam_names()) == WANTED and shipped_exam_names()[0] == "kmmlu"
    for path in SHIPPED.glob("*.yaml"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 15, path.name


@pytest.mark.parametrize("name", [name for name in WANTED if name != "kobest"])
def test_two_hundred_rows_of_every_schema_become_questions(name: str, tmp_path: Path) -> None:
    exam = find_exam(name)
    questions = questions_from_frame(
        load_exam(exam, "test", str(write_exam(tmp_path, name))) if name != "kmmlu" else _kmmlu(tmp_path)
    )
    assert len(questions) == ROWS == len({question.question_id for question in questions})
    for row, question in enumerate(questions):
        assert len(question.options) == count_of(name, row)
        assert list(question.options) == options_of(row, count_of(name, row))
        assert question.answer == right(name, row)
        assert f"{row}번째 물음" in question.question and question.subject and question.supercategory
    if name in ("haerae", "kobalt"):  # the options are not left within the question
        assert options_of(0, 5)[0] not in questions[0].question and "선택지" not in questions[0].question


def _kmmlu(folder: Path) -> pl.DataFrame:
    from kmmlu_fast.data import dataset
    from kmmlu_fast.data.subjects import find_subjects

    return dataset.load_frame(str(write_exam(folder, "kmmlu")), "test", find_subjects(["Math"]))


def test_kobest_has_two_and_four_options_by_config(tmp_path: Path) -> None:
    frame = load_exam(find_exam("kobest"), "test", str(write_exam(tmp_path, "kobest")))
    counts = {
        question.question_id.split("/")[1]: len(question.options) for question in questions_from_frame(frame)
    }
    assert len(frame) == 3 * ROWS and counts == {"boolq": 2, "copa": 2, "hellaswag": 4}
    copa = frame.filter(pl.col("subject") == "copa").row(1, named=True)
    assert (
        copa["question"] == "1번째 일이다. 이 문장의 원인(으)로 알맞은 것은?"
        and copa["answer"] == "B"
        and copa["C"] is None
    )
    assert choose_subjects(find_exam("kobest"), frame, ["BoolQ"])["subject"].unique().to_list() == ["boolq"]
    with pytest.raises(ConfigError, match="hellaswag"):
        choose_subjects(find_exam("kobest"), frame, ["law"])


def test_a_config_has_settings_of_its_own_by_pattern(tmp_path: Path) -> None:
    write_exam(tmp_path, "kbl", 2)
    four = {"question": "책임", "A": "가", "B": "나", "C": "다", "D": "라", "gt": "D"}
    write_jsonl(tmp_path / "bar_exam_responsibility_2013" / "test.jsonl", [four])
    questions = questions_from_frame(load_exam(find_exam("kbl"), "test", str(tmp_path)))
    assert sorted(len(question.options) for question in questions) == [4, 5, 5]
    assert questions[-1].question_id == "kbl/bar_exam_responsibility_2013/test/0"


def test_kmmlu_hard_takes_kmmlus_subjects(tmp_path: Path) -> None:
    frame = load_exam(find_exam("kmmlu-hard"), "test", str(write_exam(tmp_path, "kmmlu-hard", 3)))
    assert frame.row(0, named=True)["subject"] == "Math" and frame["supercategory"].unique().to_list() == [
        "STEM"
    ]


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        ({"a": 9, "A": "x", "B": "y", "C": "z"}, {}, "row 1: has no column 'q' (has a, A, B, C)"),
        ({"q": " ", "a": 1, "A": "x", "B": "y", "C": None}, {}, "row 1: column 'q' is empty"),
        ({"q": "?", "a": 3, "A": "x", "B": "y", "C": ""}, {}, "answer '3' is not allowed; it must be 1 to 2"),
        ({"q": "?", "a": 0, "A": "x", "B": "y", "C": "z"}, {}, "answer '0' is not allowed"),
        ({"q": "?", "a": "D", "A": "x", "B": "y", "C": "z"}, {"coding": "letter"}, "must be one of A, B, C"),
        (
            {"q": "?", "a": "w", "A": "x", "B": "y", "C": "z"},
            {"coding": "text"},
            "answer 'w' is none of its options",
        ),
        (
            {"q": "?", "a": "x", "A": "x", "B": "x", "C": "z"},
            {"coding": "text"},
            "more than one of its options",
        ),
        ({"q": "?", "a": 1, "A": "", "B": "y", "C": "z"}, {}, "option A is empty"),
        ({"q": "?", "a": 1, "o": "x y"}, {"options": "o"}, "holds str, not a list"),
        ({"q": "?", "a": 1, "o": ["x"]}, {"options": "o"}, "has 1 options; 2 to 10"),
        ({"q": "?", "a": 1, "o": list("0123456789x")}, {"options": "o"}, "has 11 options"),
        ({"q": "no options here", "a": 1}, {"options": {"inside": "q"}}, "no options found in the text"),
    ],
)
def test_a_fault_is_named_with_its_row(
    row: dict[str, object], changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError) as caught:
        load_exam(own(tmp_path, **changes), "test")
    assert said in str(caught.value) and "rows.jsonl row 1" in str(caught.value)


def test_faulty_rows_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    good, bad = (
        {"q": "?", "a": 1, "A": "x", "B": "y", "C": None},
        {"q": "?", "a": 7, "A": "x", "B": "y", "C": None},
    )
    write_jsonl(tmp_path / "rows.jsonl", [bad, good, bad])
    with pytest.raises(DataError, match=r"row 1: .*and 1 more"):
        load_exam(own(tmp_path), "test")
    found = read_exam_frame(own(tmp_path, faulty_rows="skip"), "test")
    assert found.value["row"].to_list() == [1] and "2 rows left out" in found.notes[0]


def test_a_declaration_names_all_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("hub: a/b\nquestion: q\noptons: [A]\ncoding: from 2\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_exam(path)
    assert "unknown key 'optons', did you mean options?" in str(caught.value) and "coding" in str(
        caught.value
    )
    path.write_text("path: x.jsonl\nquestion: q\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks options, answer, coding"):
        read_exam(path)
    with pytest.raises(ConfigError, match="did you mean kobest"):
        find_exam("kobset")


@pytest.mark.parametrize(
    ("answers", "coding"),
    [
        (["A", "(B)"], "letter"),
        ([0, 1], "from 0"),
        ([1, 2], "from 1"),
        (["짝", "홀"], "text"),
        ([1, 1], None),
    ],
)
def test_a_table_of_ones_own_needs_no_declaration_where_it_leaves_no_doubt(
    answers: list[object], coding: str | None, tmp_path: Path
) -> None:
    path = write_jsonl(
        tmp_path / "my exam.jsonl",
        [{"question": "?", "options": ["짝", "홀"], "answer": answer} for answer in answers],
    )
    if coding is None:
        with pytest.raises(ConfigError, match="leaves its coding open"):
            find_exam(str(path))
        return
    exam = find_exam(str(path))
    assert (exam.name, exam.coding) == ("my-exam", coding)
    assert [q.answer for q in questions_from_frame(load_exam(exam, "test"))] == ["A", "B"]


def test_a_csv_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "question,A,B,C,answer,context,explanation\n물음,하나,둘,,B,지문,까닭\n물음,하나,둘,셋,C,,\n",
        encoding="utf-8",
    )
    frame = load_exam(find_exam(str(path)), "test")
    assert frame["question"].to_list() == ["지문\n\n물음", "물음"] and frame["explanation"].to_list() == [
        "까닭",
        None,
    ]
    assert [len(q.options) for q in questions_from_frame(frame)] == [2, 3]


def test_options_within_a_text_are_the_last_run_of_letters() -> None:
    stem, options = split_inline_options("A. 가와 나 중 (A)는?\n(A) 하나 (B) 둘 (C) 셋\n정답:", "x")
    assert stem == "A. 가와 나 중 (A)는?" and options == ["하나", "둘", "셋"]


def test_what_forbids_training_says_so() -> None:
    with pytest.raises(ConfigError, match=r"KMMLU-Pro must not be trained on.*CC-BY-NC-ND-4.0"):
        find_exam("kmmlu-pro").refuse_training("sample")
    find_exam("kmmlu").refuse_training("sample")


def test_a_gated_set_says_where_to_accept() -> None:
    class GatedRepoError(Exception):
        pass

    assert "accept its terms at https://huggingface.co/datasets/a/b" in explain_hub_error(
        "a/b", GatedRepoError("403")
    )
    error = RuntimeError("x")
    error.response = type("R", (), {"status_code": 401})()  # type: ignore[attr-defined]
    assert "hf auth login" in explain_hub_error("a/b", error)
    assert "cannot be reached" in explain_hub_error("a/b", ConnectionError("no route"))


def test_check_shows_a_question_and_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question": "하나 더하기 둘은?", "options": list("12345"), "answer": "C"},
        {"question": "?", "options": ["1", "2"], "answer": "C"},
    ]
    path = write_jsonl(tmp_path / "own.jsonl", rows)
    assert exams.run_exams_command(["--check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "하나 더하기 둘은?\nA. 1\nB. 2\nC. 3\nD. 4\nE. 5\n정답： C" in out
    assert (
        f"fault: {path} row 2: answer 'C' is not allowed; it must be one of A, B" in out and "1 faults" in out
    )
    assert exams.run_exams_command([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in WANTED) and "CC-BY-NC-ND-4.0" in out


def test_reading_a_few_rows_reads_no_more(tmp_path: Path) -> None:
    write_exam(tmp_path, "click")
    assert len(list(read_questions(find_exam("click"), "test", str(tmp_path), rows=7))) == 7
