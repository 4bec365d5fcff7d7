"""Records of a training file in any layout.

In: a JSONL file, or a JSON file that is one list. Out: dicts, and their question and options if the layout
separates them. DataError names the row.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import parse_json, read_text
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.data.option_cells import is_missing, read_option_columns, read_option_list

OPTION_LIST_COLUMNS = ("options", "choices")  # columns that hold all options as a list


@cache
def _item_pattern(options: int) -> re.Pattern[str]:
    lines = "".join(rf"\n{letter}\. (.*)" for letter in OPTION_LETTERS[:options])
    return re.compile(rf"(?s)(.*){lines}")


def split_item(text: str, options: int = len(LETTERS)) -> tuple[str, ...] | None:
    """Question and options of a text that ends with that many lines "A. ", "B. ", ...; otherwise None."""
    match = _item_pattern(options).fullmatch(text)
    return match.groups() if match else None


def count_options(record: dict[str, Any]) -> int:
    """How many options one of our rows has: 4, or ``option_order``'s length for exams other than KMMLU."""
    order = record.get("option_order") if "exam" in record else None
    if isinstance(order, str) and 2 <= len(order) <= len(OPTION_LETTERS):
        return len(order)
    return len(LETTERS)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file, or of a JSON file that is one list. DataError names the first bad row."""
    text = read_text(path, DataError)
    if text.lstrip().startswith("["):
        records = parse_json(text, str(path), DataError)
    else:
        # Not splitlines(): it also splits at U+2028 and others, which JSON strings may contain unescaped.
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        records = [parse_json(line, f"{path} row {i}", DataError) for i, line in lines]
    if not records:
        raise DataError(f"{path}: has no rows; expected one JSON object per line")
    for i, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(
                f'{path} row {i}: is a {type(record).__name__}, not a JSON object such as {{"instruction":'
                ' ..., "output": ...}'
            )
    return list(records)


def question_and_options(record: dict[str, Any]) -> tuple[str, ...] | None:
    """A record's question and its 2 to 10 options if the layout separates them (ours, KMMLU's columns, a
    list of options or of objects), else None."""
    if "source_id" in record and isinstance(record.get("input"), str):
        return split_item(record["input"], count_options(record))
    question = record.get("question")
    if not isinstance(question, str):
        return None
    lettered = [record[letter] for letter in OPTION_LETTERS if letter in record]
    with contextlib.suppress(DataError):
        if len(lettered) >= 2:
            return (question, *read_option_columns(lettered, "").texts)
    for name in OPTION_LIST_COLUMNS:
        with contextlib.suppress(DataError):
            if not is_missing(record.get(name)):
                return (question, *read_option_list(record[name], name, "").texts)
    return None


def question_columns(record: dict[str, Any]) -> frozenset[str]:
    """The columns that ``question_and_options`` reads."""
    if "source_id" in record and isinstance(record.get("input"), str):
        return frozenset({"input"})
    return frozenset({"question", *OPTION_LETTERS, *OPTION_LIST_COLUMNS})
