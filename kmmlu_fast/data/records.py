"""Records of anybody's training file, as they are.

In: a JSONL file, or a JSON file that is one list. Out: dicts; question and options where the layout keeps
them apart. DataError names the row.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import parse_json, read_text
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS

_OPTION_LISTS = ("options", "choices")


@cache
def _item_pattern(options: int) -> re.Pattern[str]:
    lines = "".join(rf"\n{letter}\. (.*)" for letter in OPTION_LETTERS[:options])
    return re.compile(rf"(?s)(.*){lines}")


def split_item(text: str, options: int = len(LETTERS)) -> tuple[str, ...] | None:
    """Question and options of a text that ends in that many lines "A. ", "B. ", ...; None for any other."""
    found = _item_pattern(options).fullmatch(text)
    return found.groups() if found else None


def count_options(record: dict[str, Any]) -> int:
    """How many options a row of ours has: 4, or, of an exam other than KMMLU, as many as its
    ``option_order`` has letters."""
    order = record.get("option_order") if "exam" in record else None
    known = isinstance(order, str) and 2 <= len(order) <= len(OPTION_LETTERS)
    return len(str(order)) if known else len(LETTERS)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file, or of a JSON file that is one list. DataError names the row that
    is not one.
    """
    text = read_text(path, DataError)
    if text.lstrip().startswith("["):
        records = parse_json(text, str(path), DataError)
    else:
        # Not splitlines(): it also splits at U+2028 and others, which JSON leaves unescaped within strings.
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        records = [parse_json(line, f"{path} row {i}", DataError) for i, line in lines]
    if not records:
        raise DataError(f"{path}: has no rows; expected one JSON object a line")
    for i, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(
                f'{path} row {i}: is a {type(record).__name__}, not a JSON object such as {{"instruction":'
                ' ..., "output": ...}'
            )
    return list(records)


def question_and_options(record: dict[str, Any]) -> tuple[str, ...] | None:
    """Question and its 2 to 10 options of a record whose layout keeps them apart (ours, KMMLU's
    columns, a list of options), else None.
    """
    if "source_id" in record and isinstance(record.get("input"), str):
        return split_item(record["input"], count_options(record))
    question = record.get("question")
    lettered = [record[letter] for letter in OPTION_LETTERS if record.get(letter) not in (None, "")]
    for options in (lettered, *(record.get(name) for name in _OPTION_LISTS)):
        listed = isinstance(options, list) and 2 <= len(options) <= len(OPTION_LETTERS)
        if isinstance(question, str) and listed and all(isinstance(option, str) for option in options or ()):
            return (question, *(options or ()))
    return None


def all_text(value: Any) -> str:
    """Every string within a record, in its order, on lines of their own."""
    if isinstance(value, str):
        return value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "\n".join(text for child in children if (text := all_text(child)))
