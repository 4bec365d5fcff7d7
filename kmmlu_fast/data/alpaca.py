"""Fine-tuning data as Alpaca JSONL: questions to rows, and rows back to questions.

In: ``SftRow`` records: a question, possibly with reordered options and a rationale. Out: JSONL with
``instruction, input, output`` and ``subject, source_id, strategy, option_order, repeat, rationale`` (for
exams other than KMMLU also ``exam`` and ``group``). Training reads the records back and renders their
questions with ``prompts``, byte for byte as evaluation does. Knows nothing of sampling, leakage or training.

``option_order`` gives each option's letter in the source: "CABD" = the row's A was the source's C. It has
one letter per option.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS, Question
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.records import count_options, read_records, split_item
from kmmlu_fast.data.subjects import SUBJECTS

INSTRUCTION = "다음 객관식 문제를 읽고 {letters} 중 정답을 고르시오."
INSTRUCTION_WITH_RATIONALE = "다음 객관식 문제를 단계별로 풀이한 뒤, 마지막 줄에 {letters} 중 정답을 쓰시오."
IDENTITY = "".join(LETTERS)
_SOURCE = re.compile(r"([A-Za-z-]+)/(train|dev|test)/(\d+)")
_OTHER_SOURCE = re.compile(r"([^/]+)/(?:.+/)?(train|dev|test)/(\d+)")  # exams other than KMMLU
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRow:
    """One training row. ``question`` has its options and its answer's letter in the row's order."""

    question: Question  # question_id is the source's
    strategy: str
    option_order: str = IDENTITY
    repeat: int = 0  # 0 for a question's first use; later uses have other option orders
    response: str | None = None  # a rationale that ends with the answer; None = the letter alone
    exam: str = DEFAULT_EXAM


def sft_row_to_record(row: SftRow) -> dict[str, Any]:
    """The row's JSON object. DataError if question and options could not be separated again."""
    question = row.question
    lines = [f"{letter}. {text}" for letter, text in zip(question.letters, question.options, strict=True)]
    item = "\n".join([question.question.strip(), *lines])
    if split_item(item, len(lines)) != (question.question.strip(), *question.options):
        raise DataError(
            f"{question.question_id}: has lines that look like options ('A. '); it cannot be written as"
            " Alpaca rows: leave it out"
        )
    wording = INSTRUCTION if row.response is None else INSTRUCTION_WITH_RATIONALE
    record = {
        "instruction": wording.format(letters=", ".join(question.letters)),
        "input": item,
        "output": question.answer if row.response is None else row.response,
        "answer": question.answer,
        "subject": question.subject,
        "source_id": question.question_id,
        "strategy": row.strategy,
        "option_order": row.option_order,
        "repeat": row.repeat,
        "rationale": "none" if row.response is None else "self",
    }
    if row.exam != DEFAULT_EXAM:
        record |= {"exam": row.exam, "group": question.supercategory}
    return record


def write_sft_rows(path: Path, rows: list[SftRow]) -> None:
    """UTF-8 JSONL, Korean unescaped, one row per line, written atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, encode_sft_rows(rows))


def encode_sft_rows(rows: list[SftRow]) -> bytes:
    """The bytes that ``write_sft_rows`` writes."""
    lines = [json.dumps(sft_row_to_record(row), ensure_ascii=False) + "\n" for row in rows]
    return "".join(lines).encode("utf-8", "backslashreplace")


def read_sft_rows(path: Path) -> list[SftRow]:
    """Rows written by ``write_sft_rows``. DataError names file and row for anything else."""
    return [sft_row_from_record(record, f"{path} row {i}") for i, record in enumerate(read_records(path), 1)]


def sft_row_from_record(record: dict[str, Any], where: str) -> SftRow:
    """The row of one JSON object. DataError says what is wrong."""
    required = ("input", "output", "subject", "source_id", "strategy")
    missing = [name for name in required if not isinstance(record.get(name), str)]
    if missing:
        raise DataError(
            f"{where}: lacks {', '.join(missing)}; expected a file of python -m kmmlu_fast.sample"
        )
    exam, letters = _exam_name(record, where), OPTION_LETTERS[: count_options(record)]
    item = split_item(record["input"], len(letters))
    if item is None:
        lines = f"{_NUMBER_WORDS.get(len(letters), len(letters))} lines 'A. ' to '{letters[-1]}. '"
        raise DataError(f"{where}: input is not a question and {lines}")
    source_id = bounded_repr(record["source_id"])
    source = (_SOURCE if exam == DEFAULT_EXAM else _OTHER_SOURCE).fullmatch(record["source_id"])
    if exam == DEFAULT_EXAM and (source is None or source[1] not in SUBJECTS):
        raise DataError(
            f"{where}: source_id {source_id} is not <Subject>/<split>/<row> of one of the 45 subjects"
        )
    if source is None or (exam != DEFAULT_EXAM and source[1] != exam):
        raise DataError(f"{where}: source_id {source_id} is not {exam}/.../<split>/<row>")
    answer = record.get("answer", record["output"])
    if not isinstance(answer, str) or answer not in letters:
        allowed = f"{', '.join(letters[:-1])} or {letters[-1]}"
        raise DataError(f"{where}: answer {bounded_repr(answer)} is not {allowed}")
    order = record.get("option_order", IDENTITY)
    if not isinstance(order, str) or sorted(order) != list(letters):
        raise DataError(
            f"{where}: option_order {bounded_repr(order)} is not the letters A-{letters[-1]} in some order"
        )
    repeat = record.get("repeat", 0)
    if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 0:
        raise DataError(f"{where}: repeat {bounded_repr(repeat)} is not a whole number from 0")
    if len(source[3]) > 9:
        raise DataError(f"{where}: source_id {source_id} names a row that no file has")
    name, group = record["subject"], str(record.get("group") or exam)
    if exam == DEFAULT_EXAM:
        name, group = SUBJECTS[source[1]].name, SUBJECTS[source[1]].supercategory
    question = Question(
        question_id=source[0],
        subject=name,
        supercategory=group,
        split=source[2],
        row=int(source[3]),
        question=item[0],
        options=item[1:],
        answer=answer,
    )
    response = None if record["output"] == answer else record["output"]
    return SftRow(
        question=question,
        strategy=record["strategy"],
        option_order=order,
        repeat=repeat,
        response=response,
        exam=exam,
    )


def _exam_name(record: dict[str, Any], where: str) -> str:
    exam = record.get("exam", DEFAULT_EXAM)
    if not isinstance(exam, str) or not exam:
        raise DataError(f"{where}: exam {bounded_repr(exam)} is not the name of an exam")
    return exam
