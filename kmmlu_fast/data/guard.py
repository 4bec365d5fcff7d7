"""The leakage guard over training rows of any form and any number, against every exam at hand.

In: ``TrainingRow``s as a stream, exams. Out: pairs (train_id, test_id, kind, similarity) as ``overlap``
names them; ``train_id`` is where the
row stands ("chat.jsonl row 7"). A row that is a question is compared as one; of every other row all that all
turns say is searched for
questions that it quotes. Texts are taken in pieces, so that a million rows need no more memory than some
thousands.
Knows nothing of models or training.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data import overlap, shingles
from kmmlu_fast.data.exam import DEFAULT_EXAM, Exam
from kmmlu_fast.data.exam_rows import load_exam
from kmmlu_fast.data.finding import find_exam, is_cached, shipped
from kmmlu_fast.data.training_rows import TrainingRow

CACHED = "cached"  # as a name: every shipped exam that is in the hub's cache
_AT_ONCE = 16_384  # rows


@dataclass(frozen=True, slots=True)
class Guarded:
    """What must not be trained on, in the columns of ``dataset.load_frame``, and the exams that it is of."""

    frame: pl.DataFrame
    exams: list[str]


def guard_exams(dataset: str, names: Iterable[str], revision: str | None = None) -> Guarded:
    """KMMLU's test and dev as ``dataset`` has them, and test and dev of the other exams. DataError where a
    named one cannot be read."""
    frames, labels = [overlap.guarded(dataset, "test", revision)], [f"{dataset} test"]
    wanted = list(names)
    found = [find_exam(name) for name in wanted if name not in (CACHED, "none")]
    if CACHED in wanted:
        known = {exam.name for exam in found} | {DEFAULT_EXAM}
        found += [exam for exam in map(find_exam, shipped()) if exam.name not in known and is_cached(exam)]
    for exam in found:
        if not exam.is_kmmlu:
            frames += _frames(exam)
            labels.append(f"{exam.label} test")
    return Guarded(pl.concat(frames, how="diagonal"), labels)


def _frames(exam: Exam) -> list[pl.DataFrame]:
    with warnings.catch_warnings(action="ignore"):
        frames = [load_exam(exam, "test")]
        if "dev" in exam.splits:
            # Without its few-shot examples at hand, the test split is what counts.
            with contextlib.suppress(DataError):
                frames.append(load_exam(exam, "dev"))
    return frames


def check_training_rows(rows: Iterable[TrainingRow], guarded: pl.DataFrame) -> pl.DataFrame:
    """Pairs of rows that overlap ``guarded``, each once under its strictest kind; empty = clean."""
    right = overlap.keys(guarded)
    anchors = shingles.anchors_of(right, overlap.MIN_STEM)
    questions: list[dict[str, str | None]] = []
    claimed: list[tuple[str, str, str, float]] = []
    found: list[pl.DataFrame] = []
    stream = iter(rows)
    while some := list(islice(stream, _AT_ONCE)):
        texts: list[tuple[str, str]] = []
        for row in some:
            if row.item is None:
                texts.append((row.where, row.text))
                continue
            question = row.item.question
            if overlap.names_test(question.question_id):
                claimed.append((row.where, question.question_id, "source", 1.0))
            options = dict(zip(OPTION_LETTERS, question.options, strict=False))
            questions.append({"question_id": row.where, "question": question.question, **options})
            if extra := "\n".join(filter(None, (row.item.response, row.explanation))):
                texts.append((row.where, extra))
        frame = pl.DataFrame(texts, schema={"id": pl.String, "text": pl.String}, orient="row")
        found.append(overlap.contained_in(frame, right, anchors))
    known = [overlap.overlap(_items(questions), guarded)] if questions else []
    return overlap.strictest(
        [pl.DataFrame(claimed, schema=overlap.PAIR_SCHEMA, orient="row"), *known, *found]
    )


def _items(questions: list[dict[str, str | None]]) -> pl.DataFrame:
    letters = [letter for letter in OPTION_LETTERS if any(letter in question for question in questions)]
    names = ["question_id", "question", *letters]
    columns = {name: [question.get(name) for question in questions] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


def read_and_check(paths: Iterable[Path | str], guarded: pl.DataFrame) -> pl.DataFrame:
    """Pairs of all rows of some files, read as a stream."""
    from kmmlu_fast.data.training_rows import read_training_rows

    return check_training_rows((row for path in paths for row in read_training_rows(str(path))), guarded)
