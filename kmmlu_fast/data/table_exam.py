"""An exam from the user's own table (JSONL, CSV, ...), without a declaration.

In: a file of rows. Out: an ``Exam`` with default column names, its answers' coding found in the rows; or a
ConfigError that says what to write. Knows nothing of shipped exams.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.answer_coding import CodingEvidence
from kmmlu_fast.data.exam import Coding, ColumnMapping, Exam
from kmmlu_fast.data.question_cells import read_options
from kmmlu_fast.data.records import OPTION_LIST_COLUMNS
from kmmlu_fast.data.row_files import iter_source_rows

_COLUMN_ROWS = 1000  # rows of a table that are read to find its columns


def exam_from_table(path: Path) -> Exam:
    """An exam from a table with default column names; ConfigError if it cannot be one.

    Columns: question; options or choices (a list), or A, B, ...; answer; optionally subject, group, context,
    explanation. The answers' coding is detected from the rows.
    """
    head = [row for _, row in islice(iter_source_rows(str(path)), _COLUMN_ROWS)]
    columns = list(dict.fromkeys(name for row in head for name in row))
    lettered = [letter for letter in OPTION_LETTERS if letter in columns]
    list_column = next((name for name in OPTION_LIST_COLUMNS if name in columns), None)
    missing = [name for name in ("question", "answer") if name not in columns]
    if list_column is None and len(lettered) < 2:
        missing.append("options")
    if missing:
        raise ConfigError(
            f"{path}: lacks column {', '.join(missing)}; an exam without a declaration has question, options"
            f" (a list) or A, B, ..., and answer (has {', '.join(map(str, columns))}); for other names write"
            " a declaration: python -m kmmlu_fast.exams --help"
        )
    optional = {name: name for name in ("context", "subject", "group", "explanation") if name in columns}
    options = list_column or lettered
    return Exam(
        name=re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-").lower() or "own",
        title=path.stem,
        path=str(path),
        question="question",
        options=options,
        answer="answer",
        coding=_detect_table_coding(path, options),
        training="allowed",
        licence="your own",
        **optional,
    )


def _detect_table_coding(path: Path, options: str | list[str]) -> Coding:
    """How the table's answers are coded. ConfigError says which line settles it if the rows leave doubt."""
    evidence = CodingEvidence()
    reading = ColumnMapping(question="question", options=options, answer="answer")
    for number, row in iter_source_rows(str(path)):
        try:
            cells, _ = read_options(row, reading, f"{path} row {number}")
        except DataError as error:  # a fault of the row, which reading the exam names
            evidence.fault = evidence.fault or error
            continue
        evidence.add_row(row.get("answer"), cells, row)
        if evidence.is_settled():
            break
    listed = options if isinstance(options, str) else f"[{', '.join(options)}]"
    return evidence.decide(
        str(path),
        f"write a declaration, {path.stem}.yaml beside it: 'path: {path.name}', 'question: question',"
        f" 'options: {listed}', 'answer: answer', and 'coding: from 1' (or from 0, letter, text)",
    )
