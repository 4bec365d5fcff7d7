"""Reads an exam's rows as questions, whatever their declared schema.

In: an ``Exam``, a split, and where its rows are (hub, file, directory). Out: a frame with the columns of
``dataset.load_frame`` (or ``Question`` records). It has as many option columns (A, B, ...) as the longest
question needs, null in shorter ones, and ``explanation`` if declared. Bad rows raise DataError. Knows nothing
of prompts. KMMLU itself is read by ``dataset``.

``question_id`` is ``<exam>/<split>/<row>``, or ``<exam>/<config>/<split>/<row>`` if the exam has several
configs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.reading import parse_json
from kmmlu_fast.core.schema import OPTION_LETTERS, Question
from kmmlu_fast.data import dataset as kmmlu
from kmmlu_fast.data.exam import ColumnMapping, ColumnPattern, Exam, FixedOptions, InlineOptions
from kmmlu_fast.data.exam_lookup import resolve_exam_source
from kmmlu_fast.data.exam_tables import exam_split_name, iter_exam_tables
from kmmlu_fast.data.inline_options import split_inline_options
from kmmlu_fast.data.row_files import Row
from kmmlu_fast.data.subjects import find_subject, find_subjects, subject_key

_FIXED_COLUMNS = ("question_id", "subject", "supercategory", "split", "row", "question")


def load_exam(
    exam: Exam, split: str, dataset: str | None = None, revision: str | None = None
) -> pl.DataFrame:
    """``read_exam_frame`` without its notes, for callers whose notes were already shown."""
    return read_exam_frame(exam, split, dataset, revision).value


def read_exam_frame(
    exam: Exam, split: str, dataset: str | None = None, revision: str | None = None
) -> WithNotes[pl.DataFrame]:
    """All questions of a split, and a note on rows that were left out. DataError names the first faulty row
    and counts the others; ConfigError for a split that is not declared."""
    if exam.is_kmmlu:
        source = "sample" if dataset == "sample" else resolve_exam_source(exam, dataset)
        return kmmlu.read_frame(source, split, revision=revision)
    kept: list[dict[str, Any]] = []
    faults: list[str] = []
    for question, fault in read_questions(exam, split, dataset, revision):
        if fault is not None:
            faults.append(fault)
        elif question is not None:
            kept.append(question)
    if faults and exam.faulty_rows == "refuse":
        more = ""
        if len(faults) > 1:
            more = f" (and {len(faults) - 1} more such rows; to leave them out, declare 'faulty_rows: skip')"
        raise DataError(f"{faults[0]}{more}")
    notes: tuple[str, ...] = ()
    if faults:
        notes = (f"{exam.label}: {len(faults)} rows left out as its declaration says, such as {faults[0]}",)
    if not kept:
        why = "".join(f"; {text}" for text in notes)
        raise DataError(f"{exam.label}: no {split} questions in {resolve_exam_source(exam, dataset)}{why}")
    return WithNotes(frame_from_questions(kept), notes)


def read_questions(
    exam: Exam, split: str, dataset: str | None = None, revision: str | None = None, rows: int | None = None
) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """(question, None) or (None, fault) per row, over all configs; at most ``rows`` of each config."""
    source = resolve_exam_source(exam, dataset)
    tables = list(iter_exam_tables(exam, exam_split_name(exam, split), source, revision))
    for config, label, table in tables:
        reading = exam.column_mapping(label)
        prefix = f"{exam.name}/{config}" if len(tables) > 1 and config else exam.name
        for place, (number, row) in enumerate(islice(table.rows, rows)):
            where = f"{table.name} row {number}"
            try:
                values = parse_exam_question(row, reading, where)
                subject, group = _subject_and_group(exam, reading, row, config, where)
            except DataError as error:
                yield None, str(error)
                continue
            question = {
                "question_id": f"{prefix}/{split}/{place}",
                "subject": subject,
                "supercategory": group,
                "split": split,
                "row": place,
                **values,
            }
            yield question, None


def parse_exam_question(row: Row, reading: ColumnMapping, where: str) -> dict[str, Any]:
    """A row's question, options by letter, answer, and explanation if declared. DataError for a bad row."""
    options, stem = _read_options(row, reading, where)
    question = stem if stem is not None else _fill_wording(reading.question or "", row, where)
    context = _text_value(row, reading.context, where, needed=False) if reading.context else ""
    if not question.strip():
        raise DataError(f"{where}: the question is empty")
    values: dict[str, Any] = {
        "question": f"{context.strip()}\n\n{question.strip()}".strip(),
        **dict(zip(OPTION_LETTERS, options, strict=False)),
        "answer": _answer_letter(row, reading, options, where),
    }
    if reading.explanation:
        values["explanation"] = _text_value(row, reading.explanation, where, needed=False) or None
    return values


def _column_value(row: Row, name: str, where: str) -> Any:
    if name not in row:
        raise DataError(
            f"{where}: has no column {name!r} (has {', '.join(map(str, row))}); correct the declaration, or"
            " see --check"
        )
    return row[name]


def _text_value(row: Row, name: str, where: str, needed: bool = True) -> str:
    value = _column_value(row, name, where)
    if value is None or (isinstance(value, str) and not value.strip()):
        if needed:
            raise DataError(f"{where}: column {name!r} is empty")
        return ""
    if isinstance(value, list | dict):
        raise DataError(f"{where}: column {name!r} holds a {type(value).__name__}, not text")
    return str(value)


def _fill_wording(wording: str, row: Row, where: str) -> str:
    if "{" not in wording:
        return _text_value(row, wording, where)
    return re.sub(r"\{([^{}]+)\}", lambda match: _text_value(row, match[1], where), wording)


def _read_options(row: Row, reading: ColumnMapping, where: str) -> tuple[list[str], str | None]:
    """The options, and the question's text if the options were inside it."""
    declared = reading.options
    if isinstance(declared, InlineOptions):
        stem, options = split_inline_options(_text_value(row, declared.inside, where), where)
        return options, stem
    if isinstance(declared, FixedOptions):
        return list(declared.fixed), None
    if isinstance(declared, str):
        value = _column_value(row, declared, where)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _parse_list(value)
        if not isinstance(value, list):
            raise DataError(
                f"{where}: column {declared!r} holds {type(value).__name__}, not a list of options"
            )
    else:
        value = [_column_value(row, name, where) for name in declared or []]
        while value and (value[-1] is None or str(value[-1]).strip() == ""):
            value = value[:-1]  # fewer options than columns
    options = ["" if option is None else str(option) for option in value]
    if not 2 <= len(options) <= len(OPTION_LETTERS):
        raise DataError(f"{where}: has {len(options)} options; 2 to {len(OPTION_LETTERS)} are possible")
    empty = [OPTION_LETTERS[place] for place, option in enumerate(options) if not option.strip()]
    if empty:
        raise DataError(f"{where}: option {empty[0]} is empty")
    return options, None


def _parse_list(text: str) -> Any:
    """A list that a CSV holds as text: JSON, or a Python literal."""
    import ast

    with contextlib.suppress(DataError):
        return parse_json(text, "options", DataError)
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return ast.literal_eval(text)
    return text


def _answer_letter(row: Row, reading: ColumnMapping, options: list[str], where: str) -> str:
    value = _column_value(row, reading.answer or "", where)
    text = "" if value is None else str(value).strip()
    letters = OPTION_LETTERS[: len(options)]
    if reading.coding == "text":
        places = [place for place, option in enumerate(options) if option.strip() == text]
        if len(places) != 1:
            number = "more than one" if places else "none"
            raise DataError(f"{where}: answer {text!r} is {number} of its options")
        return letters[places[0]]
    if reading.coding == "letter":
        letter = text.strip("()[]. ").upper()
        if letter not in letters:
            raise DataError(
                f"{where}: answer {text!r} is not allowed; it must be one of {', '.join(letters)}"
            )
        return letter
    first = 0 if reading.coding == "from 0" else 1
    whole = re.fullmatch(r"(\d{1,2})(?:\.0)?", text)
    place = int(whole[1]) - first if whole else -1
    if not 0 <= place < len(options):
        raise DataError(
            f"{where}: answer {text!r} is not allowed; it must be {first} to {first + len(options) - 1}"
            f" ({first} = A)"
        )
    return letters[place]


def _subject_and_group(
    exam: Exam, reading: ColumnMapping, row: Row, config: str | None, where: str
) -> tuple[str, str]:
    subject = _extract_value(reading.subject, row, where) or config or exam.name
    if exam.subjects == "kmmlu":
        try:
            known = find_subject(subject)
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from error
        return known.name, known.supercategory
    return subject, _extract_value(reading.group, row, where) or exam.name


def _extract_value(wanted: str | ColumnPattern | None, row: Row, where: str) -> str:
    if wanted is None:
        return ""
    if isinstance(wanted, str):
        return _text_value(row, wanted, where, needed=False).strip()
    text = _text_value(row, wanted.column, where, needed=False)
    if not wanted.pattern:
        return text
    match = re.search(wanted.pattern, text)
    return (match[1] or "") if match else ""


def frame_from_questions(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """The frame of these questions, with as many option columns as the longest needs."""
    present = set().union(*rows, ["answer"])
    columns = [*_FIXED_COLUMNS, *OPTION_LETTERS, "answer", "explanation"]
    columns = [name for name in columns if name in _FIXED_COLUMNS or name in present]
    schema = {name: pl.Int32 if name == "row" else pl.String for name in columns}
    frame = pl.DataFrame({name: [row.get(name) for row in rows] for name in columns}, schema=schema)
    return frame.with_columns(pl.lit(None, dtype=pl.Float64).alias("human_accuracy"))


def questions_from_frame(frame: pl.DataFrame) -> list[Question]:
    """Records from a frame with any number of option columns."""
    letters = [letter for letter in OPTION_LETTERS if letter in frame.columns]
    fixed = frame.select(*_FIXED_COLUMNS, "answer", "human_accuracy").iter_rows()
    rows = zip(fixed, frame.select(letters).iter_rows(), strict=True)
    return [
        Question(
            question_id=qid,
            subject=subject,
            supercategory=group,
            split=split,
            row=row,
            question=question,
            options=tuple(text for text in texts if text is not None),
            answer=answer,
            human_accuracy=human,
        )
        for (qid, subject, group, split, row, question, answer, human), texts in rows
    ]


def choose_subjects(exam: Exam, frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The rows of those subjects or groups, ignoring case, spaces and underscores. ConfigError lists the
    names that exist."""
    if not names:
        return frame
    if exam.is_kmmlu:
        return frame.filter(pl.col("subject").is_in([subject.name for subject in find_subjects(names)]))

    existing = pl.concat([frame["supercategory"], frame["subject"]]).unique(maintain_order=True)
    present = {subject_key(name): name for name in existing}
    unknown = [name for name in names if subject_key(name) not in present]
    if unknown:
        allowed = ", ".join(sorted(set(present.values()))[:20])
        raise ConfigError(f"--subjects {', '.join(unknown)}: {exam.label} has {allowed}")
    wanted = [present[subject_key(name)] for name in names]
    return frame.filter(pl.col("subject").is_in(wanted) | pl.col("supercategory").is_in(wanted))
