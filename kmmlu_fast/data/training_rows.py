"""Training rows of any common form as one kind of record: a conversation, a question or a text.

In: a source (``row_files``), optionally with other names for its columns. Out: a stream of ``TrainingRow``
records. The columns determine the form (``row_layouts``); how questions write their answers is told from the
whole source (``answer_coding``). Rows that cannot be read are refused together, or left out (``bad_rows``).
Knows nothing of tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.answer_coding import CodingEvidence
from kmmlu_fast.data.bad_rows import BadRows
from kmmlu_fast.data.chat_turns import Turn as Turn
from kmmlu_fast.data.chat_turns import all_strings
from kmmlu_fast.data.exam import Coding
from kmmlu_fast.data.file_formats import Row
from kmmlu_fast.data.row_files import iter_located_rows
from kmmlu_fast.data.row_layouts import is_question, parse_row, read_question_options, rename_columns
from kmmlu_fast.data.row_layouts import parse_columns as parse_columns

AnswerCoding = Literal["auto", "from 0", "from 1", "letter", "text"]
HOW_TO_SAY_CODING = "say it with --answer-coding 'from 1' (1 = the first option), 'from 0', letter or text"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One row: ``turns`` that end with the assistant's; or ``item``, a multiple-choice question, which the
    prompt style words; or ``document``, a text of which every token is trained."""

    turns: tuple[Turn, ...]
    source: str  # file or hub id
    number: int  # 1-based line or row there
    form: str
    item: SftRow | None = None  # the question and its answer, if the row is one
    explanation: str | None = None
    document: str | None = None
    tools: tuple[dict[str, Any], ...] = ()  # that the row offers, as templates take them
    other_text: str = ""  # text of columns that are not trained; the leakage check reads it too

    @property
    def where(self) -> str:
        return f"{self.source} row {self.number}"

    @property
    def text(self) -> str:
        """All text that is trained or shown in training, turn by turn."""
        if self.item is not None:
            question = self.item.question
            extra = [text for text in (self.item.response, self.explanation) if text]
            return "\n".join([question.question, *question.options, *extra])
        if self.document is not None:
            return self.document
        return "\n".join(text for turn in self.turns for text in turn.texts)

    @property
    def digest(self) -> bytes:
        """16 bytes of its turns (or question); duplicates have the same."""
        key = (*self.item.question.options, self.item.question.answer) if self.item else ()
        parts = [self._turn_key(turn) for turn in self.turns] or [self.text, *key]
        return hashlib.blake2b("\x1e".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    @staticmethod
    def _turn_key(turn: Turn) -> str:
        key = f"{turn.role}\x1f{turn.content}"
        if turn.reasoning or turn.tool_calls or not turn.trained:
            calls = json.dumps(turn.tool_calls, ensure_ascii=False, sort_keys=True, default=str)
            key += f"\x1f{turn.reasoning}\x1f{calls}\x1f{turn.trained}"
        return key


def read_training_rows(
    source: str,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    revision: str | None = None,
    *,
    answer_coding: AnswerCoding = "auto",
    bad_rows: BadRows | None = None,
    unread: Counter[str] | None = None,
) -> Iterator[TrainingRow]:
    """Rows of a source, one at a time. ``columns``: our column name -> the table's, such as {"instruction":
    "질문"}. ``unread`` counts the columns that were not read.

    DataError at the end for all rows that cannot be read, unless ``bad_rows`` says to leave them out.
    ConfigError if the rows do not tell how their answers are coded.
    """
    bad = BadRows(source=source) if bad_rows is None else bad_rows
    names = dict(columns or {})
    coding: Coding | None = None if answer_coding == "auto" else answer_coding

    for file, number, raw in iter_located_rows(source, split, revision):
        bad.rows += 1
        where = f"{file} row {number}"
        try:
            if isinstance(raw, DataError):
                raise raw
            row = rename_columns(raw, names, where)
            has_coding = coding is not None or not is_question(row)
        except DataError as error:
            bad.add(error, number)
            continue
        if not has_coding:  # an error here is the source's, not the row's
            coding = _detect_answer_coding(source, names, split, revision)
        try:
            training_row, left = _build_row(row, file, number, coding)
        except DataError as error:
            bad.add(error, number)
            continue
        if names:
            left += [str(name) for name in raw.keys() - set(names.values()) if raw[name] is not None]
        if unread is not None:
            unread.update(left)
        yield training_row
    bad.finish()


def _build_row(raw: Row, source: str, number: int, coding: Coding | None) -> tuple[TrainingRow, list[str]]:
    """One row of any form, and the columns that were not read; DataError says what is wrong. ``coding``: how
    answers are written; None: as this row alone tells."""
    parsed = parse_row(raw, f"{source} row {number}", source, number, coding)
    rest = [
        value
        for name, value in raw.items()
        if name not in parsed.read and isinstance(value, (str, list, dict))
    ]
    row = TrainingRow(
        turns=parsed.turns,
        source=source,
        number=number,
        form=parsed.form,
        item=parsed.item,
        explanation=parsed.explanation,
        document=parsed.document,
        tools=parsed.tools,
        other_text="\n".join(filter(None, map(all_strings, rest))) if rest else "",
    )
    return row, parsed.unread


def _detect_answer_coding(
    source: str, columns: Mapping[str, str], split: str, revision: str | None
) -> Coding:
    """How the source's questions write their answers. ConfigError if its rows leave doubt."""
    evidence = CodingEvidence()
    for file, number, raw in iter_located_rows(source, split, revision):
        if isinstance(raw, DataError):
            continue
        try:
            row = rename_columns(raw, columns, f"{file} row {number}")
            options = read_question_options(row, f"{file} row {number}") if is_question(row) else None
        except DataError as error:  # a bad row, which reading it names
            evidence.fault = evidence.fault or error
            continue
        if options is not None:
            evidence.add_row(row["answer"], options, row)
            if evidence.is_settled():
                break
    coding = evidence.decide(source, HOW_TO_SAY_CODING)
    if coding in ("from 0", "from 1"):
        log_note(f"{source}: answers count {coding} ({coding.removeprefix('from ')} is A)")
    return coding
