"""Anybody's training rows as one kind of record: turns of a conversation, and the place that they came from.

In: rows of a table (``raw_tables``), perhaps other names for its columns. Out: ``TrainingRow`` records, one
a row, streamed. The form is
told by the columns, never guessed: a row that fits none, or two, is refused with file and row. Knows nothing
of tokens.

    ours            input, output, source_id, ... as ``python -m kmmlu_fast.sample`` writes them
    exam            question, options (a list) or A, B, ..., answer: a multiple-choice question, perhaps with
    an explanation
    messages        messages: a list of {role, content}
    sharegpt        conversations: a list of {from, value}
    alpaca          instruction, output, perhaps input
    prompt          prompt, completion (or response): two texts, or two lists of messages
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
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.exam import ColumnMapping
from kmmlu_fast.data.exam_rows import parse_exam_question
from kmmlu_fast.data.row_files import Row, iter_source_rows

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_OPTION_LISTS = ("options", "choices")
_COMPLETIONS = ("completion", "response")
FORMS = "ours, question/options/answer, messages, conversations, instruction/output, or prompt/completion"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One row. ``turns`` end with the assistant's; a multiple-choice row has ``item`` instead, and its
    wording comes from the style."""

    turns: tuple[Turn, ...]
    source: str  # file or hub id
    number: int  # 1-based line or row there
    form: str
    item: SftRow | None = None  # the question and its answer, where the row is one
    explanation: str | None = None

    @property
    def where(self) -> str:
        return f"{self.source} row {self.number}"

    @property
    def text(self) -> str:
        """Everything that it says, turn after turn: what the leakage guard reads."""
        if self.item is not None:
            question = self.item.question
            extra = [text for text in (self.item.response, self.explanation) if text]
            return "\n".join([question.question, *question.options, *extra])
        return "\n".join(turn.content for turn in self.turns)

    @property
    def digest(self) -> bytes:
        """16 bytes of its turns (or question): rows with the same are duplicates."""
        key = (*self.item.question.options, self.item.question.answer) if self.item else ()
        said = [f"{turn.role}\x1f{turn.content}" for turn in self.turns] or [self.text, *key]
        return hashlib.blake2b("\x1e".join(said).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def read_training_rows(
    source: str, columns: Mapping[str, str] | None = None, split: str = "train", revision: str | None = None
) -> Iterator[TrainingRow]:
    """Rows of a file or hub data set, one at a time. ``columns``: our name -> theirs, such as
    {"instruction": "질문"}.

    DataError names file and row of the first that cannot be read.
    """
    given = dict(columns or {})
    for number, raw in iter_source_rows(source, split=split, revision=revision):
        yield parse_training_row(_rename_columns(raw, given, f"{source} row {number}"), source, number)


def parse_columns(pairs: list[str]) -> dict[str, str]:
    """``["instruction=질문", "output=답"]`` as a mapping; ConfigError for anything else, or a name that no
    form has."""
    known = {
        "instruction",
        "input",
        "output",
        "messages",
        "conversations",
        "prompt",
        "question",
        "answer",
        "explanation",
        "context",
    }
    known |= {*_COMPLETIONS, *_OPTION_LISTS, *OPTION_LETTERS}
    found: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals or not theirs or ours not in known:
            raise ConfigError(
                f"--columns {pair!r}: write OUR=THEIRS, where OUR is one of {', '.join(sorted(known))}"
            )
        found[ours] = theirs
    return found


def _rename_columns(row: Row, columns: dict[str, str], where: str) -> Row:
    """The row under our names. Columns that were named are the only ones that tell the form."""
    if not columns:
        return row
    absent = [theirs for theirs in columns.values() if theirs not in row]
    if absent:
        raise DataError(
            f"{where}: has no column {absent[0]!r} as --columns says (has {', '.join(map(str, row))})"
        )
    return {ours: row[theirs] for ours, theirs in columns.items()}


def detect_row_form(row: Row, where: str) -> str:
    """The form whose columns the row has; DataError where it has none's or two's."""
    present = {name for name, value in row.items() if value is not None}
    if {"source_id", "input", "output"} <= present:
        return "ours"
    fits = {
        "messages": "messages" in present,
        "sharegpt": "conversations" in present,
        "alpaca": {"instruction", "output"} <= present,
        "prompt": "prompt" in present and bool(present & set(_COMPLETIONS)),
        "exam": {"question", "answer"} <= present and bool(present & {*_OPTION_LISTS, "A"}),
    }
    found = [form for form, fit in fits.items() if fit]
    if len(found) == 1:
        return found[0]
    have = f"(has {', '.join(map(str, row))})"
    if not found:
        raise DataError(
            f"{where}: is none of the known forms ({FORMS}) {have}; name its columns with --columns"
            " instruction=...,output=..."
        )
    raise DataError(
        f"{where}: could be {' or '.join(found)} {have}; say which columns to read with --columns, such as"
        " messages=messages"
    )


def parse_training_row(raw: Row, source: str, number: int) -> TrainingRow:
    """One row of any form; DataError names what is wrong."""
    where = f"{source} row {number}"
    form = detect_row_form(raw, where)
    if form == "ours":
        return TrainingRow(
            turns=(), source=source, number=number, form=form, item=sft.sft_row_from_record(raw, where)
        )
    if form == "exam":
        return _parse_exam_row(raw, source, number, where)
    if form in ("messages", "sharegpt"):
        turns = _parse_turns(raw["messages" if form == "messages" else "conversations"], where)
    elif form == "alpaca":
        instruction, extra = _require_text(raw["instruction"], "instruction", where), raw.get("input")
        asked = (
            f"{instruction}\n\n{_require_text(extra, 'input', where)}"
            if extra not in (None, "")
            else instruction
        )
        turns = (Turn("user", asked), Turn("assistant", _require_text(raw["output"], "output", where)))
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
    if isinstance(value, str):  # a list that a CSV holds as text
        value = parse_json(value, f"{where}: its messages, a text", DataError)
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
        raise DataError(f"{where}: {name} is {type(value).__name__}, not a text")
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
            f"{where}: its roles are {', '.join(roles)}; user and assistant must take turns, the user first"
        )
    if roles[-1] != "assistant":
        raise DataError(
            f"{where}: ends with the {roles[-1]}'s message; the assistant's comes last, it is what is"
            " trained on"
        )
    return turns


def _parse_exam_row(raw: Row, source: str, number: int, where: str) -> TrainingRow:
    listed = next((name for name in _OPTION_LISTS if raw.get(name) is not None), None)
    options = listed or [letter for letter in OPTION_LETTERS if letter in raw]
    answer = str(raw["answer"]).strip()
    coding = "letter" if answer.strip("()[]. ").upper() in OPTION_LETTERS else "text"
    context = "context" if raw.get("context") is not None else None
    found = parse_exam_question(
        raw,
        ColumnMapping(question="question", context=context, options=options, answer="answer", coding=coding),
        where,
    )
    texts = tuple(found[letter] for letter in OPTION_LETTERS if letter in found)
    question = Question(
        question_id=f"{source}/train/{number}",
        subject=str(raw.get("subject") or "own"),
        supercategory="own",
        split="train",
        row=number,
        question=found["question"],
        options=texts,
        answer=found["answer"],
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
