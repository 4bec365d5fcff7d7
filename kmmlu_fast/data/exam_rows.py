"""Reads an exam's rows as questions, whatever their declared schema.

In: an ``Exam``, a split, and where its rows are (hub, file, directory). Out: a frame with the columns of
``dataset.load_frame`` (or ``Question`` records). It has as many option columns (A, B, ...) as the longest
question needs, null in shorter ones, and ``explanation`` if declared. Bad rows raise DataError. Knows nothing
of prompts. KMMLU itself is read by ``dataset``.

``question_id`` is ``<exam>/<split>/<row>``, or ``<exam>/<config>/<split>/<row>`` if the exam has several
configs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.schema import OPTION_LETTERS, Question
from kmmlu_fast.data import dataset as kmmlu
from kmmlu_fast.data.exam import ColumnMapping, ColumnPattern, Exam
from kmmlu_fast.data.exam_lookup import resolve_exam_source
from kmmlu_fast.data.exam_tables import exam_split_name, iter_exam_tables
from kmmlu_fast.data.file_formats import Row
from kmmlu_fast.data.question_cells import parse_exam_question, text_value
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
    notes += tuple(f"{exam.label}: {note}" for note in describe_oddities(kept))
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
                if isinstance(row, DataError):
                    raise row
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
        return text_value(row, wanted, where, needed=False).strip()
    text = text_value(row, wanted.column, where, needed=False)
    if not wanted.pattern:
        return text
    match = re.search(wanted.pattern, text)
    return (match[1] or "") if match else ""


def describe_oddities(questions: Sequence[dict[str, Any]]) -> list[str]:
    """What does not stop an exam but should be known: repeated questions, keys that disagree, equal options,
    pictures that are not asked."""
    answers: dict[tuple[str, ...], set[str]] = {}
    repeated: dict[tuple[str, ...], int] = {}
    equal = 0
    unasked: Counter[str] = Counter()
    for question in questions:
        options = [question[letter].strip() for letter in OPTION_LETTERS if question.get(letter)]
        identity = (question["question"].strip(), *sorted(options))
        right = question[question["answer"]].strip()
        answers.setdefault(identity, set()).add(right)
        repeated[identity] = repeated.get(identity, 0) + 1
        equal += len(set(options)) < len(options)
        unasked.update(question.get("unasked", ()))
    twice = [identity for identity, count in repeated.items() if count > 1]
    conflicting = sum(len(answers[identity]) > 1 for identity in twice)
    notes = []
    if twice:
        other = f", {conflicting} of them with another key" if conflicting else ""
        notes.append(f"{_count_questions(len(twice), 'occurs', 'occur')} more than once{other}")
    if equal:
        notes.append(f"{_count_questions(equal, 'has', 'have')} two equal options")
    for column, count in unasked.items():
        notes.append(f"column {column} is not asked: {_count_questions(count, 'has', 'have')} one")
    return notes


def _count_questions(count: int, singular: str, plural: str) -> str:
    return f"1 question {singular}" if count == 1 else f"{count:,} questions {plural}"


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
