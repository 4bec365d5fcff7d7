"""One row as a question: its text, options and the letter of its answer.

In: a row and what its columns mean (``ColumnMapping``). Out: plain values; DataError for a bad row. The one
reader of questions, for exams, training rows and the leakage guard alike. Knows nothing of files or exams.
"""

from __future__ import annotations

import re
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.answer_coding import answer_letter
from kmmlu_fast.data.exam import ColumnMapping, FixedOptions, InlineOptions
from kmmlu_fast.data.file_formats import Row
from kmmlu_fast.data.inline_options import split_inline_options
from kmmlu_fast.data.option_cells import (
    OptionCells,
    is_missing,
    open_json_text,
    read_option_columns,
    read_option_list,
)
from kmmlu_fast.data.row_columns import media_columns


def parse_exam_question(row: Row, reading: ColumnMapping, where: str) -> dict[str, Any]:
    """A row's question, options by letter, answer, and explanation if declared; ``unasked`` names its columns
    with a picture or sound. DataError for a bad row."""
    options, stem = read_options(row, reading, where)
    question = stem if stem is not None else _fill_wording(reading.question or "", row, where)
    context = text_value(row, reading.context, where, needed=False) if reading.context else ""
    if not question.strip():
        raise DataError(f"{where}: the question is empty")
    answer = column_value(row, reading.answer or "", where)
    values: dict[str, Any] = {
        "question": f"{context.strip()}\n\n{question.strip()}".strip(),
        **dict(zip(OPTION_LETTERS, options.texts, strict=False)),
        "answer": answer_letter(answer, options, reading.coding or "letter", where),
    }
    if reading.explanation:
        values["explanation"] = text_value(row, reading.explanation, where, needed=False) or None
    unasked = media_columns(row)
    return {**values, "unasked": unasked} if unasked else values


def column_value(row: Row, name: str, where: str) -> Any:
    """The value of a column, or of a member of one: ``choices.text``."""
    if name in row:
        return row[name]
    head, _, member = name.partition(".")
    inner = open_json_text(row.get(head)) if member else None
    if isinstance(inner, dict) and member in inner:
        return inner[member]
    raise DataError(
        f"{where}: has no column {name!r} (has {', '.join(map(str, row))}); correct the declaration, and"
        " look at it with python -m kmmlu_fast.exams --check FILE"
    )


def text_value(row: Row, name: str, where: str, needed: bool = True) -> str:
    value = column_value(row, name, where)
    if is_missing(value):
        if needed:
            raise DataError(f"{where}: column {name!r} is empty")
        return ""
    if isinstance(value, list | dict):
        raise DataError(f"{where}: column {name!r} holds a {type(value).__name__}, not text")
    return str(value)


def _fill_wording(wording: str, row: Row, where: str) -> str:
    if "{" not in wording:
        return text_value(row, wording, where)
    return re.sub(r"\{([^{}]+)\}", lambda match: text_value(row, match[1], where), wording)


def read_options(row: Row, reading: ColumnMapping, where: str) -> tuple[OptionCells, str | None]:
    """The options, and the question's text if the options were inside it."""
    declared = reading.options
    if isinstance(declared, InlineOptions):
        stem, texts = split_inline_options(text_value(row, declared.inside, where), where)
        return OptionCells(texts), stem
    if isinstance(declared, FixedOptions):
        return OptionCells(list(declared.fixed)), None
    if isinstance(declared, str):
        return read_option_list(column_value(row, declared, where), declared, where), None
    # An object need not have the columns of options that its question does not have.
    values = [
        None if name in OPTION_LETTERS[2:] and name not in row else column_value(row, name, where)
        for name in declared or []
    ]
    return read_option_columns(values, where), None
