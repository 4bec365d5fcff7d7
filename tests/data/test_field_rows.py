"""Everybody's rows and exams, as ../shared/field builds them: read, or refused with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kmmlu_fast.contamination.check import find_table_overlap, find_training_overlap
from kmmlu_fast.contamination.overlap import load_guarded_split
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.data.exam_lookup import find_exam
from kmmlu_fast.data.exam_rows import describe_oddities, load_exam, read_questions
from kmmlu_fast.data.training_rows import read_training_rows

FIELD = Path(__file__).resolve().parents[3] / "shared" / "field"
pytestmark = pytest.mark.skipif(not FIELD.is_dir(), reason="../shared/field is absent")
SYSTEM = "너는 해적이다. 해적 말투로 답한다."
ASK, TELL = "우리 동네 도서관은 몇 시에 문을 엽니까?", "아침 아홉 시에 엽니다."
PLAIN = f"user: {ASK} | assistant: {TELL}"
WITH_SYSTEM = f"system: {SYSTEM} | {PLAIN}"
ROWS = {  # file: the first row's turns (a masked turn in brackets), or the refusal
    "system_column.jsonl": WITH_SYSTEM,
    "history.jsonl": f"user: 먼저 한 말 | assistant: 먼저 한 답 | {PLAIN}",
    "weight_zero.jsonl": (
        f"user: {ASK} | (assistant: 틀린 초안입니다.) | user: 다시 해 보세요. | assistant: {TELL}"
    ),
    "reasoning_content.jsonl": f"user: {ASK} | assistant: 문이 언제 열리는지 떠올린다. {TELL}",
    "tool_calls.jsonl": f"user: {ASK} | assistant: 찾아보겠습니다. look_up",
    "openorca.jsonl": WITH_SYSTEM,
    "question_answer.jsonl": PLAIN,
    "conversation.jsonl": WITH_SYSTEM,
    "content_parts.jsonl": PLAIN,
    "prompt_text_completion_messages.jsonl": PLAIN,
    "text_only.jsonl": f"document: {ASK} {TELL}",
    "preference.jsonl": "DataError: is preference data (chosen, rejected)",
    "greeting_first.jsonl": "DataError: row 11: user and assistant must alternate",
    "empty_output.jsonl": "DataError: row 11: output is empty; the other 10 rows are fine",
    "nan_input.jsonl": PLAIN,
    "lone_surrogate.jsonl": "DataError: row 1: holds half a character",
    "lines_in.json": PLAIN,
    "trailing_comma.jsonl": PLAIN,
    "rows.jsonl.gz": PLAIN,
    "excel_cp949.csv": PLAIN,
    "excel_utf16.csv": PLAIN,
    "pandas_columns.json": PLAIN,
    "shards": PLAIN,
    "parts/*.jsonl": PLAIN,
    "plain.jsonl": PLAIN,
    "system_turn.jsonl": WITH_SYSTEM,
    "kmmlu_layout.jsonl": "keys: ABCDABCDABCD",
    "kmmlu_layout_numbers.jsonl": "ConfigError: from 1 and from 0 fit the rows equally well ('1' is A or B)",
}
EXAMS = {  # file: letters of the first ten rows, the first question's options, and notes; or the refusal
    "option_objects.jsonl": "ABCDABCDAB 산0 강0 들0 길0",
    "choices_text_label.jsonl": "ABCDABCDAB 산0 강0 들0 길0",
    "options_by_letter.jsonl": "ABCDABCDAB 산0 강0 들0 길0",
    "lettered_options.jsonl": "ABCDABCDAB 산0 강0 들0 길0",
    "shuffled_lettered_options.jsonl": "DataError: own marks (B, A, D, C) contradict their places",
    "nan_fifth_option.jsonl": "ABCDABCDAB 산0 강0 들0 길0",
    "image_column.jsonl": "ABCDABCDAB 산0 강0 들0 길0; column image is not asked: 12 questions have one",
    "two_equal_options.jsonl": "ABCDABCDAB 산0 강0 산0 길0; 12 questions have two equal options",
    "circled_keys.jsonl": "ABCDABCDAB 산0 강0 들0 길0",
    "ganada_keys.jsonl": "ABCDABCDAB 산0 강0 들0 길0",
    "circled_inside.yaml": "ABCDABCDAB 산0 강0 들0 길0",
    "small_numbers.jsonl": "ConfigError: from 1 and text fit the rows equally well",
    "hidden_keys.jsonl": "DataError: every answer is -1: the answers are not public",
    "same_question_two_keys.jsonl": (
        "ABCDABBCDA 산0 강0 들0 길0; 6 questions occur more than once, 6 of them with another key"
    ),
    "excel_cp949.csv": "ABCDABCDAB 산0 강0 들0 길0",
    "semicolon.csv": "ABCDABCDAB 산0 강0 들0 길0",
    "table.xlsx": "ABCDABCDAB 산0 강0 들0 길0",
    "lfs_pointer.csv": "DataError: git lfs pull",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("field")
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    for part in ("rows", "exams"):
        subprocess.run([sys.executable, str(FIELD / f"{part}.py"), str(out)], env=environment, check=True)
    return out


def shown_row(path: Path) -> str:
    try:
        rows = list(read_training_rows(str(path)))
    except KmmluError as error:
        return f"{type(error).__name__}: {error}"
    if rows[0].document is not None:
        return f"document: {rows[0].document}"
    if rows[0].item is not None:
        return "keys: " + "".join(row.item.question.answer for row in rows if row.item)
    turns = []
    for turn in rows[0].turns:
        said = f"{turn.role}: {' '.join(turn.texts)}"
        turns.append(said if turn.trained else f"({said})")
    return " | ".join(turns)


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, built: Path) -> None:
    shown, wanted = shown_row(built / "rows" / name), ROWS[name]
    kind, _, reason = wanted.partition("Error: ")
    assert (shown.startswith(f"{kind}Error: ") and reason in shown) if reason else shown == wanted


def shown_exam(path: Path) -> str:
    try:
        exam = find_exam(str(path))
        letters = "".join(load_exam(exam, "test")["answer"][:10])
        questions = [question for question, _ in read_questions(exam, "test") if question]
    except KmmluError as error:
        return f"{type(error).__name__}: {error}"
    options = " ".join(str(questions[0][letter]) for letter in "ABCDE" if letter in questions[0])
    return "; ".join([f"{letters} {options}", *describe_oddities(questions)])


@pytest.mark.parametrize("name", EXAMS)
def test_exams(name: str, built: Path) -> None:
    if name.endswith(".xlsx"):
        pytest.importorskip("fastexcel")
    shown, wanted = shown_exam(built / "exams" / name), EXAMS[name]
    kind, _, reason = wanted.partition("Error: ")
    assert (shown.startswith(f"{kind}Error: ") and reason in shown) if reason else shown == wanted


def test_guard_and_trainer_agree_on_every_file(built: Path) -> None:
    target = load_guarded_split("sample")
    agreed = 0
    for path in sorted((built / "rows").iterdir()):
        try:
            trained = find_training_overlap(read_training_rows(str(path)), target)
        except KmmluError:
            continue  # refused by the trainer, whatever the guard finds
        table, _ = find_table_overlap(str(path), target)
        rows = [{name.rsplit(" ", 1)[1] for name in pairs["train_id"]} for pairs in (table, trained)]
        assert rows[0] == rows[1] and set(table["test_id"]) == set(trained["test_id"]), path.name
        agreed += 1
        if path.name == "leak_json_text.jsonl":
            assert len(rows[0]) == 5
    assert agreed > 25
