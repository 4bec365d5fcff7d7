"""The options of a question, whatever cells hold them: a list, objects, columns, an object by letter.

In: a cell (or one cell per option column). Out: ``OptionCells``: the texts in order, without marks of their
own, and the labels that the answers may use. DataError for what cannot be told. Knows nothing of answers.

    ["산", "들"]                      {"A": "산", "B": "들"}
    [{"label": "A", "text": "산"}]    {"text": ["산", "들"], "label": ["A", "B"]}
    any of these as JSON or Python text, as a CSV holds them
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import parse_json
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.option_marks import read_mark, read_whole_number, strip_option_marks

_TEXT_NAMES = ("text", "content", "value", "option", "choice", "answer", "body", "option_text")
_LABEL_NAMES = ("label", "key", "letter", "mark", "id", "no", "number", "index")


@dataclass(frozen=True, slots=True)
class OptionCells:
    """``labels``: what the table calls each option, if it says so. ``first_number``: the number of the first
    option, if its labels or marks are numbers."""

    texts: list[str]
    labels: tuple[str, ...] = ()
    first_number: int | None = None


def is_missing(value: Any) -> bool:
    """None, NaN (pandas' empty cell) or a blank text."""
    return value is None or (isinstance(value, float) and value != value) or not str(value).strip()


def open_json_text(value: Any) -> Any:
    """The list or object that a text holds as JSON or as a Python literal; other values unchanged."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    with contextlib.suppress(DataError):
        return parse_json(value, "text", DataError)
    if len(value) < 1_000_000:
        import ast

        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            literal = ast.literal_eval(value.strip())
            if isinstance(literal, (list, dict)):
                return literal
    return value


def read_option_list(value: Any, column: str, where: str) -> OptionCells:
    """The options of one cell."""
    value = open_json_text(value)
    if isinstance(value, Mapping):
        return _finish_options(*_split_mapping(value, column, where), where)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"{where}: column {column!r} holds {type(value).__name__}, not a list of options")
    if any(isinstance(item, Mapping) for item in value):
        pairs = [_split_object(item, place, where) for place, item in enumerate(value, 1)]
        texts, labels = [text for text, _ in pairs], [label for _, label in pairs]
        return _finish_options(texts, [] if None in labels else labels, where)
    return _finish_options(list(value), [], where)


def read_option_columns(values: Sequence[Any], where: str) -> OptionCells:
    """The options of one column each."""
    return _finish_options(list(values), [], where)


def _split_mapping(value: Mapping[Any, Any], column: str, where: str) -> tuple[list[Any], list[Any]]:
    """(texts, labels) of {"text": [...], "label": [...]} or of {"A": ..., "B": ...}."""
    text_name = next((name for name in _TEXT_NAMES if isinstance(value.get(name), Sequence)), None)
    if text_name is not None and not isinstance(value[text_name], str):
        labels: list[Any] = next((list(value[name]) for name in _LABEL_NAMES if value.get(name)), [])
        return list(value[text_name]), labels
    present = {str(key): text for key, text in value.items() if not is_missing(text)}
    if len(present) >= 2 and _label_order(list(present)) is not None:
        names = sorted(present, key=lambda name: _label_place(name))
        return [present[name] for name in names], names
    raise DataError(
        f"{where}: column {column!r} holds an object ({', '.join(map(str, value))}); readable are"
        " {A: ..., B: ...} and {text: [...], label: [...]}"
    )


def _split_object(item: Any, place: int, where: str) -> tuple[Any, Any]:
    """(text, label) of one option that is an object."""
    if not isinstance(item, Mapping):
        return item, None
    present = {str(name): value for name, value in item.items() if not is_missing(value)}
    if len(present) == 1:
        name, value = next(iter(present.items()))
        return (value, None) if name in _TEXT_NAMES else (value, name)
    text_name = next((name for name in _TEXT_NAMES if name in present), None)
    label_name = next((name for name in _LABEL_NAMES if name in present), None)
    if text_name is None:
        texts = [name for name, value in present.items() if isinstance(value, str) and name != label_name]
        text_name = texts[0] if len(texts) == 1 else None
    if text_name is None or not isinstance(present[text_name], (str, int, float)):
        raise DataError(
            f"{where}: option {place} is an object with {', '.join(present) or 'nothing'}; it is unclear"
            " which of them is its text: name one of them 'text'"
        )
    return present[text_name], present[label_name] if label_name else None


def _label_place(label: Any) -> int:
    number = read_whole_number(label)
    place = number if number is not None else read_mark(str(label))
    return -1 if place is None else place


def _label_order(labels: Sequence[Any]) -> list[int] | None:
    """The place that each label names, from 0; None if they are not marks 0..n-1 (or numbers from 1)."""
    places = [_label_place(label) for label in labels]
    first = min(places, default=-1)
    places = [place - first for place in places] if first in (0, 1) else places
    return places if sorted(places) == list(range(len(labels))) else None


def _finish_options(values: list[Any], labels: list[Any], where: str) -> OptionCells:
    """Checked: 2 to 10 texts, labels that agree with their places, marks stripped. Empty cells at the end are
    options that the row does not have."""
    values = ["" if is_missing(value) else value for value in values]
    while values and values[-1] == "":
        values.pop()
    if bad := next((value for value in values if not isinstance(value, (str, int, float))), None):
        raise DataError(f"{where}: an option is a {type(bad).__name__}, not text")
    texts = [str(value) for value in values]
    labels = labels[: len(texts)]
    if not 2 <= len(texts) <= len(OPTION_LETTERS):
        raise DataError(f"{where}: has {len(texts)} options; 2 to {len(OPTION_LETTERS)} are possible")
    if "" in texts:
        raise DataError(f"{where}: option {OPTION_LETTERS[texts.index('')]} is empty")
    order = _label_order(labels) if labels else None
    if order is not None and order != list(range(len(texts))):
        raise DataError(
            f"{where}: the options' labels ({', '.join(map(str, labels))}) contradict their places; it is"
            " unclear which of the two the answer means: put the options in the order of their labels"
        )
    numbers = [read_whole_number(label) for label in labels]
    texts, first_number = strip_option_marks(texts, where)
    if order is not None and numbers[0] is not None:
        first_number = numbers[0]
    return OptionCells(texts, tuple(str(label).strip() for label in labels), first_number)
