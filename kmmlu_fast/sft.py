"""Fine-tuning data on disk: Alpaca JSONL out of chosen questions, and back.

In: ``SftRow`` records (a question, its options perhaps reordered, a rationale perhaps). Out: JSONL with ``instruction, input,
output`` and ``subject, source_id, strategy, option_order, repeat, rationale``; and the same records again, whose questions
go through ``prompts`` for training, byte for byte as in evaluation. Also reads records of third-party files, as they are.
Knows nothing of sampling, leakage or training.

``option_order`` says where the options stood in the source: "CABD" = the row's A was the source's C.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.errors import DataError
from kmmlu_fast.schema import LETTERS, Question
from kmmlu_fast.subjects import SUBJECTS

INSTRUCTION = "다음 객관식 문제를 읽고 A, B, C, D 중 정답을 고르시오."
INSTRUCTION_WITH_RATIONALE = "다음 객관식 문제를 단계별로 풀이한 뒤, 마지막 줄에 A, B, C, D 중 정답을 쓰시오."
IDENTITY = "".join(LETTERS)

_ITEM = re.compile(r"(?s)(.*)\nA\. (.*)\nB\. (.*)\nC\. (.*)\nD\. (.*)")
_SOURCE = re.compile(r"([A-Za-z-]+)/(train|dev|test)/(\d+)")
_OPTION_LISTS = ("options", "choices")


@dataclass(frozen=True, slots=True)
class SftRow:
    """One training row. ``question`` has its options in the row's order, and the answer's letter there."""

    question: Question  # question_id is the source's
    strategy: str
    option_order: str = IDENTITY
    repeat: int = 0  # 0 for the first use of a question; later uses have other orders
    response: str | None = None  # a rationale that ends in the answer; None = the letter alone


def reorder(question: Question, order: str) -> Question:
    """The question with its options in ``order`` (source letters, "CABD") and the answer's letter following its option."""
    a, b, c, d = (question.options[LETTERS.index(letter)] for letter in order)
    return replace(question, options=(a, b, c, d), answer=LETTERS[order.index(question.answer)])


def to_record(row: SftRow) -> dict[str, Any]:
    """The row's JSON object. DataError where question and options could not be told apart again."""
    question = row.question
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=True)]
    item = "\n".join([question.question.strip(), *lines])
    if _split_item(item) != (question.question.strip(), *question.options):
        raise DataError(
            f"{question.question_id}: has lines that look like options ('A. '); it cannot be written as Alpaca rows: leave it out"
        )
    return {
        "instruction": INSTRUCTION if row.response is None else INSTRUCTION_WITH_RATIONALE,
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


def write_rows(path: Path, rows: list[SftRow]) -> None:
    """UTF-8 JSONL, Korean unescaped, one row a line; whole or not at all."""
    lines = [json.dumps(to_record(row), ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text("".join(lines), encoding="utf-8", newline="\n")
    scratch.replace(path)


def read_rows(path: Path) -> list[SftRow]:
    """The rows that ``write_rows`` wrote. DataError names file and row for anything else."""
    return [_from_record(record, f"{path} row {i}") for i, record in enumerate(read_records(path), 1)]


def _from_record(record: dict[str, Any], where: str) -> SftRow:
    absent = [name for name in ("input", "output", "subject", "source_id", "strategy") if not isinstance(record.get(name), str)]
    if absent:
        raise DataError(f"{where}: lacks {', '.join(absent)}; expected a file of python -m kmmlu_fast.sample")
    item, source = _split_item(record["input"]), _SOURCE.fullmatch(record["source_id"])
    if item is None:
        raise DataError(f"{where}: input is not a question and four lines 'A. ' to 'D. '")
    if source is None or source[1] not in SUBJECTS:
        raise DataError(f"{where}: source_id {record['source_id']!r} is not <Subject>/<split>/<row> of one of the 45 subjects")
    answer = record.get("answer", record["output"])
    if answer not in LETTERS:
        raise DataError(f"{where}: answer {answer!r} is not A, B, C or D")
    order = record.get("option_order", IDENTITY)
    if sorted(str(order)) != list(LETTERS):
        raise DataError(f"{where}: option_order {order!r} is not the letters A-D in some order")
    subject = SUBJECTS[source[1]]
    question = Question(source[0], subject.name, subject.supercategory, source[2], int(source[3]), item[0], item[1:], answer)
    response = None if record["output"] == answer else record["output"]
    return SftRow(question, record["strategy"], order, int(record.get("repeat", 0)), response)


def _split_item(text: str) -> tuple[str, str, str, str, str] | None:
    found = _ITEM.fullmatch(text)
    return (found[1], found[2], found[3], found[4], found[5]) if found else None


def read_records(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file, or of a JSON file that is one list. DataError names the row that is not one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a JSONL training file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; give a JSONL training file") from error
    if text.lstrip().startswith("["):
        records = _decode(text, str(path))
    else:
        # Not splitlines(): it also splits at U+2028 and others, which JSON leaves unescaped within strings.
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        records = [_decode(line, f"{path} row {i}") for i, line in lines]
    if not records:
        raise DataError(f"{path}: has no rows; expected one JSON object a line")
    for i, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(
                f'{path} row {i}: is a {type(record).__name__}, not a JSON object such as {{"instruction": ..., "output": ...}}'
            )
    return list(records)


def _decode(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is not valid JSON ({error.msg} at column {error.colno}); expected one JSON object a line") from error


def question_and_options(record: dict[str, Any]) -> tuple[str, str, str, str, str] | None:
    """Question and four options of a record whose layout keeps them apart (ours, KMMLU's columns, a list of options), else None."""
    if "source_id" in record and isinstance(record.get("input"), str):
        return _split_item(record["input"])
    question = record.get("question")
    for options in ([record.get(letter) for letter in LETTERS], *(record.get(name) for name in _OPTION_LISTS)):
        if isinstance(question, str) and isinstance(options, list) and len(options) == 4 and all(isinstance(o, str) for o in options):
            return (question, *options)
    return None


def all_text(value: Any) -> str:
    """Every string within a record, in its order, on lines of their own."""
    if isinstance(value, str):
        return value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "\n".join(text for child in children if (text := all_text(child)))
