"""The parts of a training row that are compared with questions: one rule for the guard and for the trainer.

In: a raw record of any layout, or a ``TrainingRow``. Out: a ``ComparedRow``: its question and options if it
is one, and all its other text, whether it is trained or not (texts that are JSON are opened). Knows nothing
of how overlap is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.chat_turns import all_strings
from kmmlu_fast.data.exam_lookup import shipped_exam_names
from kmmlu_fast.data.records import question_and_options, question_columns
from kmmlu_fast.data.row_files import iter_located_rows
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.data.training_rows import TrainingRow


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """The parts of a row that are compared."""

    where: str
    item: tuple[str, ...] | None = None  # question, options
    text: str = ""  # all other text
    claims: str | None = None  # the test question that the row's source_id names

    @property
    def length(self) -> int:
        """Characters to compare."""
        return len(self.text) + sum(map(len, self.item or ()))


def is_held_out_source(source_id: Any) -> bool:
    """Whether a row's source_id names a test or dev question of KMMLU or another shipped exam."""
    match = re.fullmatch(r"([A-Za-z-]+)/(.+/)?(?:test|dev)/\d+", str(source_id))
    if match is None:
        return False
    return match[1] in shipped_exam_names() or (match[2] is None and match[1] in SUBJECTS)


def compare_training_row(row: TrainingRow) -> ComparedRow:
    """The compared parts of a row that would be trained."""
    if row.item is None:
        return ComparedRow(row.where, text="\n".join(filter(None, (row.text, row.other_text))))
    question = row.item.question
    claims = question.question_id if is_held_out_source(question.question_id) else None
    extra = "\n".join(filter(None, (row.item.response, row.explanation, row.other_text)))
    return ComparedRow(row.where, (question.question, *question.options), extra, claims)


def compare_record(record: dict[str, Any], where: str) -> ComparedRow:
    """The compared parts of any record."""
    source = record.get("source_id")
    claims = str(source) if is_held_out_source(source) else None
    item = question_and_options(record)
    used = question_columns(record) if item else frozenset()
    rest = {name: value for name, value in record.items() if name not in used}
    return ComparedRow(where, item, all_strings(rest), claims)


def iter_compared_rows(source: str) -> Iterator[ComparedRow]:
    """The compared parts of every row of a source, "row N". DataError for a row that cannot be read."""
    for file, number, record in iter_located_rows(source):
        if isinstance(record, DataError):
            raise record
        yield compare_record(record, f"row {number}" if file == source else f"{file} row {number}")
