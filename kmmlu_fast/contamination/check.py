"""The leakage check: training rows of any form and number against every exam at hand.

In: a stream of ``TrainingRow``s, exams. Out: pairs (train_id, test_id, kind, similarity) as defined in
``overlap``; ``train_id`` is the row's origin ("chat.jsonl row 7"). A row that is a question is compared as
one; the text of any other row is searched for quoted questions. Rows are checked in batches, on two threads
(the work is in numpy's and polars' native code), so a million rows need no more memory than a few thousand.
Knows nothing of models or training.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import polars as pl

from kmmlu_fast.contamination import overlap, shingles
from kmmlu_fast.contamination.compared_rows import ComparedRow, compare_training_row, iter_compared_rows
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import find_exam, is_exam_cached, shipped_exam_names
from kmmlu_fast.data.exam_rows import load_exam
from kmmlu_fast.data.exam_source import ExamSource
from kmmlu_fast.data.training_rows import TrainingRow

CACHED = "cached"  # an exam name that stands for every shipped exam in the hub's cache
ROWS_AT_ONCE, CHARS_AT_ONCE = 16_384, 4_000_000  # limits of a batch; characters are approximate
_THREADS = 2


@dataclass(frozen=True, slots=True)
class GuardedQuestions:
    """Questions that must not be trained on (columns of ``dataset.load_frame``), and their exams."""

    frame: pl.DataFrame
    exams: list[str]


def load_guarded_exams(dataset: str, names: Iterable[str], revision: str | None = None) -> GuardedQuestions:
    """Test and dev of KMMLU at ``dataset``, and of the named exams. DataError if one cannot be read."""
    frames, labels = [overlap.load_guarded_split(dataset, "test", revision)], [f"{dataset} test"]
    names = list(names)
    exams = [find_exam(name) for name in names if name not in (CACHED, "none")]
    if CACHED in names:
        skipped = {exam.name for exam in exams} | {DEFAULT_EXAM}
        shipped = [find_exam(name) for name in shipped_exam_names() if name not in skipped]
        exams += filter(is_exam_cached, shipped)
    for exam in exams:
        if exam.name != DEFAULT_EXAM:  # KMMLU's own questions come from ``dataset``
            frames += _guarded_frames(exam)
            labels.append(f"{exam.label} test")
    return GuardedQuestions(pl.concat(frames, how="diagonal"), labels)


def load_guarded_for_exam(
    exam: Exam, dataset: str | None = None, revision: str | None = None
) -> GuardedQuestions:
    """Test and dev of one exam, with its rows at ``dataset`` (default: as declared), and of every other
    shipped exam, including KMMLU, in the hub's cache."""
    frames, labels = _guarded_frames(exam, dataset, revision), [f"{exam.label} test"]
    for other in map(find_exam, shipped_exam_names()):
        if other.name != exam.name and is_exam_cached(other):
            with contextlib.suppress(DataError):  # the cache may hold only some of its files
                frames += _guarded_frames(other)
                labels.append(f"{other.label} test")
    return GuardedQuestions(pl.concat(frames, how="diagonal"), labels)


@dataclass(frozen=True, slots=True)
class TrainSplitOverlap:
    """A train split's overlap with the exams it must not leak into."""

    pairs: pl.DataFrame  # columns as in ``overlap.PAIR_SCHEMA``
    exams: list[str]  # the exams that were searched
    notes: tuple[str, ...] = ()


def find_train_split_overlap(source: ExamSource) -> TrainSplitOverlap:
    """Pairs of an exam's train questions, over all subjects, with test and dev questions. KMMLU's are cached;
    another exam's are also compared with every shipped exam in the hub's cache."""
    if source.exam.is_kmmlu:  # its 200,000 train rows take seconds, so its pairs are cached on disk
        pairs = overlap.train_overlap(source.place, source.revision)
        return TrainSplitOverlap(pairs.value, [f"{source.exam.label} test"], tuple(pairs.notes))
    train = source.read_split("train")
    guarded = load_guarded_for_exam(source.exam, source.dataset, source.revision)
    return TrainSplitOverlap(overlap.find_overlapping_rows(train.value, guarded.frame), guarded.exams)


def _guarded_frames(
    exam: Exam, dataset: str | None = None, revision: str | None = None
) -> list[pl.DataFrame]:
    frames = [load_exam(exam, "test", dataset, revision)]
    if "dev" in exam.splits:
        # Dev may not be at hand; the test split is what counts.
        with contextlib.suppress(DataError):
            frames.append(load_exam(exam, "dev", dataset, revision))
    return frames


def find_training_overlap(rows: Iterable[TrainingRow], guarded: pl.DataFrame) -> pl.DataFrame:
    """Pairs of rows that overlap ``guarded``, each once under its strictest kind; empty = clean."""
    return _find_overlaps(map(compare_training_row, rows), guarded)


def find_table_overlap(source: str, guarded: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Pairs of a source's rows ("row N", 1-based) that overlap ``guarded``, and its number of rows. Any
    layout works: other texts are searched as they are. DataError for a row that cannot be read."""
    count = 0

    def compared_rows() -> Iterator[ComparedRow]:
        nonlocal count
        for row in iter_compared_rows(source):
            count += 1
            yield row

    return _find_overlaps(compared_rows(), guarded), count


def _find_overlaps(rows: Iterable[ComparedRow], guarded: pl.DataFrame) -> pl.DataFrame:
    target = overlap.build_overlap_target(guarded)
    anchors = shingles.build_anchors(target.keys, overlap.MIN_STEM)
    pairs: list[pl.DataFrame] = []
    with ThreadPoolExecutor(_THREADS) as threads:
        pending: deque[Future[pl.DataFrame]] = deque()
        for batch in _batch_rows(rows):
            pending.append(threads.submit(_check_batch, batch, target, anchors))
            if len(pending) > _THREADS:
                pairs.append(pending.popleft().result())
        pairs += [future.result() for future in pending]
    return overlap.keep_strictest_pairs(pairs)


def _batch_rows(rows: Iterable[ComparedRow]) -> Iterator[list[ComparedRow]]:
    batch: list[ComparedRow] = []
    chars = 0
    for row in rows:
        batch.append(row)
        chars += row.length
        if len(batch) == ROWS_AT_ONCE or chars >= CHARS_AT_ONCE:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _check_batch(
    rows: list[ComparedRow], target: overlap.OverlapTarget, anchors: shingles.Anchors
) -> pl.DataFrame:
    return overlap.match_compared_rows(rows, target, anchors)
