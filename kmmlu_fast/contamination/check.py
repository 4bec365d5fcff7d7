"""The leakage guard over training rows of any form and any number, against every exam at hand.

In: ``TrainingRow``s as a stream, exams. Out: pairs (train_id, test_id, kind, similarity) as ``overlap``
names them; ``train_id`` is where the
row stands ("chat.jsonl row 7"). A row that is a question is compared as one; of every other row all that all
turns say is searched for questions that it quotes. Rows are taken in pieces, two at a time on two threads
(the work is in numpy's and polars' own code), so that a million rows need no more memory than some
thousands.
Knows nothing of models or training.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl

from kmmlu_fast.contamination import overlap, shingles
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.exam import DEFAULT_EXAM, Exam
from kmmlu_fast.data.exam_lookup import find_exam, is_exam_cached, shipped_exam_names
from kmmlu_fast.data.exam_rows import load_exam
from kmmlu_fast.data.records import all_text, question_and_options
from kmmlu_fast.data.row_files import iter_source_rows
from kmmlu_fast.data.training_rows import TrainingRow

CACHED = "cached"  # as a name: every shipped exam that is in the hub's cache
ROWS_AT_ONCE, CHARS_AT_ONCE = 16_384, 4_000_000  # rows of a piece at most, and their characters, about
_THREADS = 2


@dataclass(frozen=True, slots=True)
class GuardedQuestions:
    """What must not be trained on, in the columns of ``dataset.load_frame``, and the exams that it is of."""

    frame: pl.DataFrame
    exams: list[str]


def load_guarded_exams(dataset: str, names: Iterable[str], revision: str | None = None) -> GuardedQuestions:
    """KMMLU's test and dev as ``dataset`` has them, and test and dev of the other exams. DataError where a
    named one cannot be read."""
    frames, labels = [overlap.load_guarded_split(dataset, "test", revision)], [f"{dataset} test"]
    wanted = list(names)
    found = [find_exam(name) for name in wanted if name not in (CACHED, "none")]
    if CACHED in wanted:
        known = {exam.name for exam in found} | {DEFAULT_EXAM}
        found += [
            exam
            for exam in map(find_exam, shipped_exam_names())
            if exam.name not in known and is_exam_cached(exam)
        ]
    for exam in found:
        if not exam.is_kmmlu:
            frames += _guarded_frames(exam)
            labels.append(f"{exam.label} test")
    return GuardedQuestions(pl.concat(frames, how="diagonal"), labels)


def load_guarded_for_exam(
    exam: Exam, dataset: str | None = None, revision: str | None = None
) -> GuardedQuestions:
    """Test and dev of one exam, whose rows are at ``dataset`` (default: where it says), and of every other
    shipped exam, KMMLU too, that is in the hub's cache."""
    frames, labels = _guarded_frames(exam, dataset, revision), [f"{exam.label} test"]
    for other in map(find_exam, shipped_exam_names()):
        if other.name != exam.name and is_exam_cached(other):
            with contextlib.suppress(DataError):  # some files of it only
                frames += _guarded_frames(other)
                labels.append(f"{other.label} test")
    return GuardedQuestions(pl.concat(frames, how="diagonal"), labels)


def _guarded_frames(
    exam: Exam, dataset: str | None = None, revision: str | None = None
) -> list[pl.DataFrame]:
    frames = [load_exam(exam, "test", dataset, revision)]
    if "dev" in exam.splits:
        # Without its few-shot examples at hand, the test split is what counts.
        with contextlib.suppress(DataError):
            frames.append(load_exam(exam, "dev", dataset, revision))
    return frames


def find_training_overlap(rows: Iterable[TrainingRow], guarded: pl.DataFrame) -> pl.DataFrame:
    """Pairs of rows that overlap ``guarded``, each once under its strictest kind; empty = clean."""
    return _find_overlaps((_compared_training_row(row) for row in rows), guarded)


def find_table_overlap(source: str, guarded: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Pairs of the rows of a table of whatever layout ("row N", 1-based), and how many rows it has. Texts
    are searched as they stand."""
    count = 0

    def looked_at() -> Iterator[_ComparedRow]:
        nonlocal count
        for number, record in iter_source_rows(source):
            count += 1
            yield _compared_record(record, number)

    return _find_overlaps(looked_at(), guarded), count


@dataclass(frozen=True, slots=True)
class _ComparedRow:
    """What of a row is compared: its question and options, and what else it says."""

    where: str
    item: tuple[str, ...] | None = None  # question, options
    text: str = ""
    claims: str | None = None  # the test question that it says it is


def _compared_training_row(row: TrainingRow) -> _ComparedRow:
    if row.item is None:
        return _ComparedRow(row.where, text=row.text)
    question = row.item.question
    claims = question.question_id if overlap.is_held_out_source(question.question_id) else None
    extra = "\n".join(filter(None, (row.item.response, row.explanation)))
    return _ComparedRow(row.where, (question.question, *question.options), extra, claims)


def _compared_record(record: dict[str, Any], number: int) -> _ComparedRow:
    source = record.get("source_id")
    claims = str(source) if overlap.is_held_out_source(source) else None
    item = question_and_options(record)
    return _ComparedRow(f"row {number}", item, "" if item else all_text(record), claims)


def _find_overlaps(rows: Iterable[_ComparedRow], guarded: pl.DataFrame) -> pl.DataFrame:
    target = overlap.build_overlap_target(guarded)
    anchors = shingles.build_anchors(target.keys, overlap.MIN_STEM)
    found: list[pl.DataFrame] = []
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting: deque[Future[pl.DataFrame]] = deque()
        for piece in _batch_rows(rows):
            waiting.append(threads.submit(_check_batch, piece, target, anchors))
            if len(waiting) > _THREADS:
                found.append(waiting.popleft().result())
        found += [piece.result() for piece in waiting]
    return overlap.keep_strictest_pairs(found)


def _batch_rows(rows: Iterable[_ComparedRow]) -> Iterator[list[_ComparedRow]]:
    piece: list[_ComparedRow] = []
    chars = 0
    for row in rows:
        piece.append(row)
        chars += len(row.text) + sum(map(len, row.item or ()))
        if len(piece) == ROWS_AT_ONCE or chars >= CHARS_AT_ONCE:
            yield piece
            piece, chars = [], 0
    if piece:
        yield piece


def _check_batch(
    rows: list[_ComparedRow], target: overlap.OverlapTarget, anchors: shingles.Anchors
) -> pl.DataFrame:
    claimed = [(row.where, row.claims, "source", 1.0) for row in rows if row.claims]
    found = [pl.DataFrame(claimed, schema=overlap.PAIR_SCHEMA, orient="row")]
    questions = [(row.where, row.item) for row in rows if row.item]
    if questions:
        found.append(overlap.find_overlapping_rows(_question_frame(questions), target))
    texts = [(row.where, row.text) for row in rows if row.text]
    if texts:
        frame = pl.DataFrame(texts, schema={"id": pl.String, "text": pl.String}, orient="row")
        found.append(overlap.match_contained_items(frame, target.keys, anchors))
    return overlap.keep_strictest_pairs(found)


def _question_frame(questions: list[tuple[str, tuple[str, ...]]]) -> pl.DataFrame:
    most = max(len(item) - 1 for _, item in questions)
    padded = [(where, *item, *[None] * (most + 1 - len(item))) for where, item in questions]
    names = ("question_id", "question", *OPTION_LETTERS[:most])
    return pl.DataFrame(padded, schema=dict.fromkeys(names, pl.String), orient="row")
