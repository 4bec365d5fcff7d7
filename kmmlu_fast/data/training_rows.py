"""Training rows of any common form as one kind of record: the turns of a conversation, and their origin.

In: rows of a table (``row_files``), optionally with other names for its columns. Out: a stream of
``TrainingRow`` records. The columns determine the form: a row that fits no form, or two, is refused with file
and row. Knows nothing of tokens.

    ours        input, output, source_id, ... as ``python -m kmmlu_fast.sample`` writes them
    exam        question, options (a list) or A, B, ..., answer; optionally explanation, context, subject
    messages    messages: a list of {role, content}
    sharegpt    conversations: a list of {from, value}
    alpaca      instruction, output; optionally input
    prompt      prompt, completion (or response): two texts, or two lists of messages
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.reading import parse_json
from kmmlu_fast.core.schema import OPTION_LETTERS, Question
from kmmlu_fast.data.alpaca import SftRow, sft_row_from_record
from kmmlu_fast.data.exam import ColumnMapping
from kmmlu_fast.data.exam_rows import parse_exam_question
from kmmlu_fast.data.records import OPTION_LIST_COLUMNS
from kmmlu_fast.data.row_files import Row, iter_source_rows

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_COMPLETIONS = ("completion", "response")
_TEXT_COLUMNS = ("instruction", "input", "output", "prompt", "question", "answer", "explanation", "context")
_KNOWN_COLUMNS = frozenset(
    (*_TEXT_COLUMNS, "messages", "conversations", *_COMPLETIONS, *OPTION_LIST_COLUMNS, *OPTION_LETTERS)
)
FORMS = "ours, question/options/answer, messages, conversations, instruction/output, or prompt/completion"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One row. ``turns`` end with the assistant's. A multiple-choice row has ``item`` instead; the prompt
    style words it."""

    turns: tuple[Turn, ...]
    source: str  # file or hub id
    number: int  # 1-based line or row there
    form: str
    item: SftRow | None = None  # the question and its answer, if the row is one
    explanation: str | None = None

    @property
    def where(self) -> str:
        return f"{self.source} row {self.number}"

    @property
    def text(self) -> str:
        """All text of the row, turn by turn, as the leakage check reads it."""
        if self.item is not None:
            question = self.item.question
            extra = [text for text in (self.item.response, self.explanation) if text]
            return "\n".join([question.question, *question.options, *extra])
        return "\n".join(turn.content for turn in self.turns)

    @property
    def digest(self) -> bytes:
        """16 bytes of its turns (or question); duplicates have the same."""
        key = (*self.item.question.options, self.item.question.answer) if self.item else ()
        parts = [f"{turn.role}\x1f{turn.content}" for turn in self.turns] or [self.text, *key]
        return hashlib.blake2b("\x1e".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def read_training_rows(
    source: str, columns: Mapping[str, str] | None = None, split: str = "train", revision: str | None = None
) -> Iterator[TrainingRow]:
    """Rows of a file or hub data set, one at a time. ``columns``: our column name -> the table's, such as
    {"instruction": "질문"}. DataError names file and row of the first row that cannot be read.
    """
    for number, raw in iter_source_rows(source, split=split, revision=revision):
        row = _rename_columns(raw, columns or {}, f"{source} row {number}")
        yield parse_training_row(row, source, number)


def parse_columns(pairs: list[str]) -> dict[str, str]:
    """``["instruction=질문", "output=답"]`` as a mapping; ConfigError for anything else, or a name that no
    form has."""
    columns: dict[str, str] = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if not column or name not in _KNOWN_COLUMNS:
            known = ", ".join(sorted(_KNOWN_COLUMNS))
            raise ConfigError(f"--columns {pair!r}: write OUR=THEIRS, where OUR is one of {known}")
        columns[name] = column
    return columns


def _rename_columns(row: Row, columns: Mapping[str, str], where: str) -> Row:
    """The row under our names, with only the columns that ``columns`` names, if it names any."""
    if not columns:
        return row
    missing = [column for column in columns.values() if column not in row]
    if missing:
        raise DataError(
            f"{where}: has no column {missing[0]!r}, which --columns names (has {', '.join(map(str, row))})"
        )
    return {name: row[column] for name, column in columns.items()}


def detect_row_form(row: Row, where: str) -> str:
    """The form whose columns the row has; DataError if it fits no form, or two."""
    present = {name for name, value in row.items() if value is not None}
    if {"source_id", "input", "output"} <= present:
        return "ours"
    fits = {
        "messages": "messages" in present,
        "sharegpt": "conversations" in present,
        "alpaca": {"instruction", "output"} <= present,
        "prompt": "prompt" in present and bool(present & set(_COMPLETIONS)),
        "exam": {"question", "answer"} <= present and bool(present & {*OPTION_LIST_COLUMNS, "A"}),
    }
    forms = [form for form, fit in fits.items() if fit]
    if len(forms) == 1:
        return forms[0]
    columns = f"(has {', '.join(map(str, row))})"
    if not forms:
        raise DataError(
            f"{where}: is none of the known forms ({FORMS}) {columns}; name its columns with --columns"
            " instruction=...,output=..."
        )
    raise DataError(
        f"{where}: could be {' or '.join(forms)} {columns}; choose the columns to read with --columns, such"
        " as messages=messages"
    )


def parse_training_row(raw: Row, source: str, number: int) -> TrainingRow:
    """One row of any form; DataError says what is wrong."""
    where = f"{source} row {number}"
    form = detect_row_form(raw, where)
    if form == "ours":
        item = sft_row_from_record(raw, where)
        return TrainingRow(turns=(), source=source, number=number, form=form, item=item)
    if form == "exam":
        return _parse_exam_row(raw, source, number, where)
    if form in ("messages", "sharegpt"):
        turns = _parse_turns(raw["messages" if form == "messages" else "conversations"], where)
    elif form == "alpaca":
        prompt = _require_text(raw["instruction"], "instruction", where)
        if raw.get("input") not in (None, ""):
            prompt += f"\n\n{_require_text(raw['input'], 'input', where)}"
        turns = (Turn("user", prompt), Turn("assistant", _require_text(raw["output"], "output", where)))
    else:
        turns = _prompt_turns(raw, where)
    return TrainingRow(turns=_check_roles(turns, where), source=source, number=number, form=form)


def _prompt_turns(raw: Row, where: str) -> tuple[Turn, ...]:
    name = next(name for name in _COMPLETIONS if raw.get(name) is not None)
    if isinstance(raw["prompt"], list) or isinstance(raw[name], list):
        return (*_parse_turns(raw["prompt"], where), *_parse_turns(raw[name], where))
    return (
        Turn("user", _require_text(raw["prompt"], "prompt", where)),
        Turn("assistant", _require_text(raw[name], name, where)),
    )


def _parse_turns(value: Any, where: str) -> tuple[Turn, ...]:
    if isinstance(value, str):  # a CSV holds the list as text
        value = parse_json(value, f"{where}: its messages, as text", DataError)
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: its messages are {type(value).__name__}, not a list of {{role, content}}")
    return tuple(_parse_turn(item, place, where) for place, item in enumerate(value, 1))


def _parse_turn(item: Any, place: int, where: str) -> Turn:
    if not isinstance(item, dict):
        raise DataError(
            f"{where}: message {place} is {type(item).__name__}, not an object with role and content"
        )
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if role not in ROLES:
        raise DataError(f"{where}: message {place} has role {role!r}; allowed are {', '.join(ROLES)}")
    return Turn(ROLES[str(role)], _require_text(content, f"message {place}", where))


def _require_text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {type(value).__name__}, not text")
    if not value.strip():
        raise DataError(f"{where}: {name} is empty")
    return value


def _check_roles(turns: tuple[Turn, ...], where: str) -> tuple[Turn, ...]:
    roles = [turn.role for turn in turns]
    if "system" in roles[1:]:
        raise DataError(f"{where}: has a system message after the first; only the first may be one")
    spoken = roles[1:] if roles[0] == "system" else roles
    if not spoken or spoken[0] != "user" or any(a == b for a, b in pairwise(spoken)):
        raise DataError(
            f"{where}: its roles are {', '.join(roles)}; user and assistant must alternate, the user first"
        )
    if roles[-1] != "assistant":
        raise DataError(
            f"{where}: ends with the {roles[-1]}'s message; the last must be the assistant's (trained on)"
        )
    return turns


def _parse_exam_row(raw: Row, source: str, number: int, where: str) -> TrainingRow:
    list_column = next((name for name in OPTION_LIST_COLUMNS if raw.get(name) is not None), None)
    options = list_column or [letter for letter in OPTION_LETTERS if letter in raw]
    answer = str(raw["answer"]).strip()
    coding = "letter" if answer.strip("()[]. ").upper() in OPTION_LETTERS else "text"
    context = "context" if raw.get("context") is not None else None
    mapping = ColumnMapping(
        question="question", context=context, options=options, answer="answer", coding=coding
    )
    values = parse_exam_question(raw, mapping, where)
    texts = tuple(values[letter] for letter in OPTION_LETTERS if letter in values)
    question = Question(
        question_id=f"{source}/train/{number}",
        subject=str(raw.get("subject") or "own"),
        supercategory="own",
        split="train",
        row=number,
        question=values["question"],
        options=texts,
        answer=values["answer"],
    )
    explanation = raw.get("explanation")
    return TrainingRow(
        turns=(),
        source=source,
        number=number,
        form="exam",
        item=SftRow(question=question, strategy="own", option_order="".join(question.letters)),
        explanation=_require_text(explanation, "explanation", where) if explanation else None,
    )
