"""The layouts of training rows: which columns make which form, and what each column becomes.

In: one row as a dict. Out: ``ParsedRow``: turns, or a question, or a text; and the columns that were read.
DataError for a row that fits no form, or two. Knows nothing of files.

    ours        input, output, source_id, ... as ``python -m kmmlu_fast.sample`` writes them
    exam        question, options (a list) or A, B, ..., answer; optionally explanation, context, subject
    messages    messages: a list of {role, content}
    sharegpt    conversations or conversation: a list of {from, value}, or of {system, input, output}
    alpaca      instruction, output (or response); optionally input, context
    prompt      prompt, completion (or response): two texts, two lists of messages, or one of each
    qa          question (or query), answer (or response); optionally context
    text        text: a document, every token of it trained

Conversations may also have: system (or system_prompt), history, tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.schema import OPTION_LETTERS, Question
from kmmlu_fast.data.alpaca import SftRow, sft_row_from_record
from kmmlu_fast.data.answer_coding import CodingEvidence
from kmmlu_fast.data.chat_turns import (
    Turn,
    check_turns,
    holds_messages,
    parse_tools,
    parse_turns,
    require_text,
)
from kmmlu_fast.data.exam import Coding, ColumnMapping
from kmmlu_fast.data.file_formats import Row
from kmmlu_fast.data.option_cells import OptionCells, is_missing
from kmmlu_fast.data.question_cells import parse_exam_question, read_options
from kmmlu_fast.data.records import OPTION_LIST_COLUMNS
from kmmlu_fast.data.row_columns import describe_preference, unread_columns

_SYSTEM = ("system", "system_prompt", "system_message")
_SIDE_COLUMNS = (*_SYSTEM, "history", "tools")
_MESSAGE_LISTS = {"messages": "messages", "conversations": "sharegpt", "conversation": "sharegpt"}
# form: (columns of the request, its own columns of the answer, others, columns behind the request)
_PAIRS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "alpaca": (("instruction",), ("output",), ("response", "completion", "answer"), ("input", "context")),
    "prompt": (("prompt",), ("completion", "response"), ("output", "answer"), ()),
    "qa": (("question", "query"), ("answer",), ("response", "output", "completion"), ()),
}
_EXAM_COLUMNS = ("question", "answer", "explanation", "context", "subject", "group", "supercategory")
_KNOWN_COLUMNS = frozenset(
    (
        *_MESSAGE_LISTS,
        *_SIDE_COLUMNS,
        *(name for columns in _PAIRS.values() for part in columns for name in part),
        *_EXAM_COLUMNS[:5],
        *OPTION_LIST_COLUMNS,
        *OPTION_LETTERS,
        "text",
    )
)
FORMS = (
    "what `sample` writes, question/options/answer, messages, conversations, instruction/output,"
    " prompt/completion, question/answer, or text"
)


@dataclass(slots=True, kw_only=True)
class ParsedRow:
    """What a row says; exactly one of ``turns``, ``item`` and ``document`` is given."""

    form: str
    turns: tuple[Turn, ...] = ()
    item: SftRow | None = None
    document: str | None = None
    explanation: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    read: set[str] = field(default_factory=set)
    unread: list[str] = field(default_factory=list)  # columns and message keys to name to the user


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


def rename_columns(row: Row, columns: Mapping[str, str], where: str) -> Row:
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
    has_options = bool(present & {*OPTION_LIST_COLUMNS, "A"})
    forms = [form for column, form in _MESSAGE_LISTS.items() if column in present]
    forms += [form for form, (requests, own, _, _) in _PAIRS.items() if _has_both(present, requests, own)]
    if not forms:  # other columns of the answer count only if nothing else fits
        forms = [f for f, (requests, _, other, _) in _PAIRS.items() if _has_both(present, requests, other)]
    if "qa" in forms and has_options and {"question", "answer"} <= present:
        forms[forms.index("qa")] = "exam"
    forms = list(dict.fromkeys(forms))
    if len(forms) == 1:
        return forms[0]
    columns = f"(has {', '.join(map(str, row))})"
    if len(forms) > 1:
        raise DataError(
            f"{where}: could be {' or '.join(forms)} {columns}; choose the columns to read with --columns,"
            " such as messages=messages"
        )
    preference = [name for name in ("chosen", "rejected") if name in present]
    if preference:
        raise DataError(describe_preference(preference, where))
    if "text" in present:
        return "text"
    raise DataError(
        f"{where}: is none of the known forms ({FORMS}) {columns}; name its columns with --columns"
        " instruction=...,output=..."
    )


def _has_both(present: set[str], requests: tuple[str, ...], answers: tuple[str, ...]) -> bool:
    return not present.isdisjoint(requests) and not present.isdisjoint(answers)


def parse_row(raw: Row, where: str, source: str, number: int, coding: Coding | None) -> ParsedRow:
    """One row of any form. ``coding``: how the answers of questions are written; None: as this row alone
    tells."""
    form = detect_row_form(raw, where)
    if form == "ours":
        return ParsedRow(form=form, item=sft_row_from_record(raw, where), read=set(raw))
    if form == "exam":
        parsed = _parse_exam_row(raw, source, number, where, coding)
    elif form == "text":
        parsed = ParsedRow(form=form, document=require_text(raw["text"], "text", where), read={"text"})
    else:
        parsed = _parse_conversation(raw, form, where)
    parsed.unread += unread_columns(raw, parsed.read, where)
    return parsed


def _parse_conversation(raw: Row, form: str, where: str) -> ParsedRow:
    parsed = ParsedRow(form=form)
    turns: list[Turn]
    if form in ("messages", "sharegpt"):
        column = next(name for name in _MESSAGE_LISTS if raw.get(name) is not None)
        conversation = parse_turns(raw[column], where)
        turns, parsed.read, parsed.unread = conversation.turns, {column}, sorted(conversation.unread)
    else:
        turns = _parse_pair(raw, form, where, parsed)
    turns = _put_before(turns, raw, where, parsed)
    if not is_missing(raw.get("tools")) and raw["tools"] not in ([], {}):
        parsed.tools = parse_tools(raw["tools"], where)
        parsed.read.add("tools")
    parsed.turns = check_turns(turns, where)
    return parsed


def _parse_pair(raw: Row, form: str, where: str, parsed: ParsedRow) -> list[Turn]:
    """A request and its answer: each a text, or a list of messages."""
    requests, own, other, behind = _PAIRS[form]
    request_column = next(name for name in requests if raw.get(name) is not None)
    answer_column = next(name for name in (*own, *other) if raw.get(name) is not None)
    parsed.read |= {request_column, answer_column}
    turns: list[Turn] = []
    if holds_messages(raw[request_column]):
        turns += parse_turns(raw[request_column], where).turns
    else:
        text = require_text(raw[request_column], request_column, where)
        for name in behind:
            if not is_missing(raw.get(name)):
                text += f"\n\n{require_text(raw[name], name, where)}"
                parsed.read.add(name)
        if form == "qa" and not is_missing(raw.get("context")):
            text = f"{require_text(raw['context'], 'context', where).strip()}\n\n{text}"
            parsed.read.add("context")
        turns.append(Turn("user", text))
    if holds_messages(raw[answer_column]):
        turns += parse_turns(raw[answer_column], where).turns
    else:
        turns.append(Turn("assistant", require_text(raw[answer_column], answer_column, where)))
    return turns


def _put_before(turns: list[Turn], raw: Row, where: str, parsed: ParsedRow) -> list[Turn]:
    """The turns after what the columns system and history say."""
    history = raw.get("history")
    if not is_missing(history) and history != []:
        earlier = parse_turns(history, f"{where}: history").turns
        head = turns[:1] if turns[0].role == "system" else []
        turns = [*head, *earlier, *turns[len(head) :]]
        parsed.read.add("history")
    names = [name for name in _SYSTEM if not is_missing(raw.get(name))]
    for name in names:
        system = Turn("system", require_text(raw[name], name, where))
        parsed.read.add(name)
        if turns[0].role != "system":
            turns = [system, *turns]
        elif turns[0].content.strip() != system.content.strip():
            raise DataError(f"{where}: has a system message besides the column {name}; keep one of them")
    return turns


def exam_reading(raw: Row, coding: Coding | None = None) -> ColumnMapping:
    """What the columns of a row that is a question mean."""
    list_column = next((name for name in OPTION_LIST_COLUMNS if raw.get(name) is not None), None)
    return ColumnMapping(
        question="question",
        context="context" if raw.get("context") is not None else None,
        options=list_column or [letter for letter in OPTION_LETTERS if letter in raw],
        answer="answer",
        coding=coding,
    )


def is_question(raw: Row) -> bool:
    """Whether the row is a multiple-choice question whose answer's coding must be known."""
    if raw.get("answer") is None:
        return False
    try:
        return detect_row_form(raw, "") == "exam"
    except DataError:
        return False


def read_question_options(raw: Row, where: str) -> OptionCells:
    """The options of a row that is a question; DataError if they cannot be read."""
    return read_options(raw, exam_reading(raw), where)[0]


def _parse_exam_row(raw: Row, source: str, number: int, where: str, coding: Coding | None) -> ParsedRow:
    if coding is None:
        evidence = CodingEvidence()
        evidence.add_row(raw["answer"], read_question_options(raw, where), raw)
        coding = evidence.decide(where, "give --answer-coding")
    reading = exam_reading(raw, coding)
    values = parse_exam_question(raw, reading, where)
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
    options = [reading.options] if isinstance(reading.options, str) else list(reading.options or ())
    return ParsedRow(
        form="exam",
        item=SftRow(question=question, strategy="own", option_order="".join(question.letters)),
        explanation=None if is_missing(explanation) else require_text(explanation, "explanation", where),
        read={*_EXAM_COLUMNS, *map(str, options)},
    )
