"""Fine-tuning data on disk: Alpaca JSONL out of chosen questions, and back.

In: ``SftRow`` records (a question, its options perhaps reordered, a rationale perhaps). Out: JSONL with
``instruction, input, output`` and ``subject, source_id, strategy, option_order, repeat, rationale``; and the
same records again, whose questions go through ``prompts`` for training, byte for byte as in evaluation. Also
reads records of third-party files, as they are. Knows nothing of sampling, leakage or training.

``option_order`` says where the options stood in the source: "CABD" = the row's A was the source's C.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.core.foreign import shown
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data.records import read_records, split_item
from kmmlu_fast.data.subjects import SUBJECTS

INSTRUCTION = "다음 객관식 문제를 읽고 A, B, C, D 중 정답을 고르시오."
INSTRUCTION_WITH_RATIONALE = "다음 객관식 문제를 단계별로 풀이한 뒤, 마지막 줄에 A, B, C, D 중 정답을 쓰시오."
IDENTITY = "".join(LETTERS)
_SOURCE = re.compile(r"([A-Za-z-]+)/(train|dev|test)/(\d+)")


@dataclass(frozen=True, slots=True)
class SftRow:
    """One training row. ``question`` has its options in the row's order, and the answer's letter there."""

    question: Question  # question_id is the source's
    strategy: str
    option_order: str = IDENTITY
    repeat: int = 0  # 0 for the first use of a question; later uses have other orders
    response: str | None = None  # a rationale that ends in the answer; None = the letter alone


def to_record(row: SftRow) -> dict[str, Any]:
    """The row's JSON object. DataError where question and options could not be told apart again."""
    question = row.question
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=True)]
    item = "\n".join([question.question.strip(), *lines])
    if split_item(item) != (question.question.strip(), *question.options):
        raise DataError(
            f"{question.question_id}: has lines that look like options ('A. '); it cannot be written as"
            " Alpaca rows: leave it out"
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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, rows_bytes(rows))


def rows_bytes(rows: list[SftRow]) -> bytes:
    """What ``write_rows`` writes."""
    lines = [json.dumps(to_record(row), ensure_ascii=False) + "\n" for row in rows]
    return "".join(lines).encode("utf-8", "backslashreplace")


def read_rows(path: Path) -> list[SftRow]:
    """The rows that ``write_rows`` wrote. DataError names file and row for anything else."""
    return [from_record(record, f"{path} row {i}") for i, record in enumerate(read_records(path), 1)]


def from_record(record: dict[str, Any], where: str) -> SftRow:
    absent = [
        name
        for name in ("input", "output", "subject", "source_id", "strategy")
        if not isinstance(record.get(name), str)
    ]
    if absent:
        raise DataError(f"{where}: lacks {', '.join(absent)}; expected a file of python -m kmmlu_fast.sample")
    item, source = split_item(record["input"]), _SOURCE.fullmatch(record["source_id"])
    if item is None:
        raise DataError(f"{where}: input is not a question and four lines 'A. ' to 'D. '")
    if source is None or source[1] not in SUBJECTS:
        raise DataError(
            f"{where}: source_id {shown(record['source_id'])} is not <Subject>/<split>/<row> of one of the 45"
            " subjects"
        )
    answer = record.get("answer", record["output"])
    if not isinstance(answer, str) or answer not in LETTERS:
        raise DataError(f"{where}: answer {shown(answer)} is not A, B, C or D")
    order = record.get("option_order", IDENTITY)
    if not isinstance(order, str) or sorted(order) != list(LETTERS):
        raise DataError(f"{where}: option_order {shown(order)} is not the letters A-D in some order")
    repeat = record.get("repeat", 0)
    if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 0:
        raise DataError(f"{where}: repeat {shown(repeat)} is not a whole number from 0")
    if len(source[3]) > 9:
        raise DataError(f"{where}: source_id {shown(record['source_id'])} names a row that no file has")
    subject = SUBJECTS[source[1]]
    question = Question(
        source[0], subject.name, subject.supercategory, source[2], int(source[3]), item[0], item[1:], answer
    )
    response = None if record["output"] == answer else record["output"]
    return SftRow(question, record["strategy"], order, repeat, response)
