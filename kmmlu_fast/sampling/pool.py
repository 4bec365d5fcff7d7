"""Where training questions come from: the run that shows what is weak, and the questions that may be drawn.

In: a run or score file, an exam, a dataset. Out: a ``Source`` with its warnings; a ``Pool`` without anything
that overlaps test or dev.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import polars as pl

from kmmlu_fast.core.console import note
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset as datasets
from kmmlu_fast.data import overlap
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_rows import choose_subjects, load_exam, to_questions
from kmmlu_fast.data.finding import dataset_for
from kmmlu_fast.data.guard import guard_exam
from kmmlu_fast.data.subjects import SUBJECTS, find_subjects
from kmmlu_fast.runs.loading import load
from kmmlu_fast.runs.run import Run
from kmmlu_fast.sampling.config import SampleFlags

TRAIN_RUN = "`python -m kmmlu_fast.eval --split train --limit 50`"


@dataclass(frozen=True, slots=True)
class Source:
    """Where weakness was read from. ``split`` is None for none at all; score files are taken to
    be of test.
    """

    run: Run | None = None
    split: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pool:
    """Training questions that may be drawn, and what was left out: pairs with test or dev,
    repeated rows, rows of the run.
    """

    questions: list[Question]
    size: int
    overlapping: pl.DataFrame
    repeated: list[str]
    conflicting: list[str]
    excluded: int
    groups: dict[str, str] = field(default_factory=dict)  # every subject that may be drawn from: its group
    against: list[str] = field(default_factory=list)  # whose test and dev questions were looked for

    @property
    def dropped(self) -> pl.DataFrame:
        """Every row that the guard left out and why: ``kind``, and the test or dev question it
        overlaps (null for repeats).
        """
        rows = [
            (i, None, kind, None)
            for kind, ids in (("repeated", self.repeated), ("conflicting", self.conflicting))
            for i in ids
        ]
        return pl.concat([self.overlapping, pl.DataFrame(rows, schema=overlap.PAIR_SCHEMA, orient="row")])


def read_source(argument: str | None, strategy: str, exam: Exam | None = None) -> Source:
    """The run or scores that ``--from`` names, with the warnings that the plan and the card will carry."""
    if argument is None:
        if strategy in ("strategic", "errors"):
            raise ConfigError(
                f"--strategy {strategy} needs --from: a run directory ({TRAIN_RUN}) or a score file; or use"
                " --strategy uniform"
            )
        return Source()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = load(argument)
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs[:5])
        raise ConfigError(
            f"--from {argument}: holds {len(runs)} runs ({names}, ...); name one, such as"
            f" {argument}:{runs[0].name}"
        )
    (run,) = runs
    if exam is not None and not exam.is_kmmlu:
        if run.exam != exam.name and run.predictions is not None:
            raise ConfigError(
                f"--from {argument}: is a run over {run.exam_title}; rows of {exam.label} need a run over"
                f" {exam.label}: `python -m kmmlu_fast.eval --exam {exam.name} --split train --limit 50`"
            )
    elif run.exam != "kmmlu" and (
        foreign := [name for name in run.scores["subject"] if name not in SUBJECTS]
    ):
        raise ConfigError(
            f"--from {argument}: is a run over {run.exam_title}, whose subjects ({foreign[0]}, ...) are not"
            f" KMMLU's, which rows are drawn from; give {TRAIN_RUN}"
        )
    if strategy == "errors" and run.predictions is None:
        raise RunError(
            f"--from {argument}: --strategy errors needs a run directory with predictions; this holds scores"
            " by subject only"
        )
    split = str(run.predictions["split"][0]) if run.predictions is not None else "test"
    if strategy == "errors" and split != "train":
        raise ConfigError(
            f"--from {argument}: --strategy errors draws the run's own questions, which must be of train, not"
            f" {split}: {TRAIN_RUN}"
        )
    notes = [str(item.message) for item in caught]
    if split != "train":
        kind = "scores, taken to be of test" if run.predictions is None else f"a run over {split}"
        notes.append(
            f"weakness comes from {kind}: the sample is tuned to that split, and a later gain on it is"
            f" optimistic; weights that are not come from {TRAIN_RUN}"
        )
    if strategy == "errors":
        notes.append(
            "the run's own train questions are drawn from: they cannot serve as a held-out slice again"
        )
    for text in notes:
        note(f"warning: {text}")
    return Source(run, split, notes)


def build_pool(config: SampleFlags, exam: Exam, source: Source) -> Pool:
    """The train split without rows that overlap test or dev, repeated rows, and the rows that
    the run was over.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame, pairs, groups, against = (_of_kmmlu if exam.is_kmmlu else _of_other)(config, exam)
    notes = [str(item.message) for item in caught]
    place = config.dataset if exam.is_kmmlu else dataset_for(config.dataset, exam, [exam])
    answered = _answered(source, exam)
    if source.split == "train" and answered not in (None, place):
        notes.append(
            f"the run was over --dataset {answered}, rows come from {place or exam.label}: its questions"
            " cannot be excluded unless both are one"
        )
    for text in dict.fromkeys(notes):
        source.warnings.append(text)
        note(f"warning: {text}")
    size = len(frame)
    pairs = pairs.join(frame, left_on="train_id", right_on="question_id", how="semi")
    clean = frame.join(pairs, left_on="question_id", right_on="train_id", how="anti", maintain_order="left")
    repeated, conflicting = overlap.repeated_rows(clean)
    clean = clean.filter(~pl.col("question_id").is_in([*repeated, *conflicting]))
    before = len(clean)
    if (
        source.run is not None
        and source.split == "train"
        and config.strategy != "errors"
        and source.run.predictions is not None
    ):
        clean = clean.join(source.run.predictions, on="question_id", how="anti", maintain_order="left")
    questions = datasets.to_questions(clean) if exam.is_kmmlu else to_questions(clean)
    excluded = before - len(clean)
    return Pool(questions, size, pairs, repeated, conflicting, excluded, groups, against)


_Found = tuple[pl.DataFrame, pl.DataFrame, dict[str, str], list[str]]


def _of_kmmlu(config: SampleFlags, exam: Exam) -> _Found:
    """Train questions, their pairs with test and dev, all subjects with their groups, what was guarded."""
    subjects = find_subjects(config.subjects)
    pairs = overlap.train_overlap(config.dataset, config.dataset_revision)
    frame = datasets.load_frame(config.dataset, "train", subjects, config.dataset_revision)
    return frame, pairs, {subject.name: subject.supercategory for subject in subjects}, [f"{exam.label} test"]


def _of_other(config: SampleFlags, exam: Exam) -> _Found:
    place = dataset_for(config.dataset, exam, [exam])
    whole = load_exam(exam, "train", place, config.dataset_revision)
    guarded = guard_exam(exam, place, config.dataset_revision)
    pairs = overlap.overlap(whole, guarded.frame)
    frame = choose_subjects(exam, whole, config.subjects)
    groups = dict(frame.select("subject", "supercategory").unique("subject").sort("subject").iter_rows())
    return frame, pairs, groups, guarded.exams


def _answered(source: Source, exam: Exam) -> str | None:
    """Where the run's questions were from, as its config says it; None where it does not."""
    if source.run is None:
        return None
    told = source.run.config.get("config" if exam.is_kmmlu else "exam") or {}
    return told.get("dataset")
