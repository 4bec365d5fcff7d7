"""Where training questions come from: the runs that show what is weak, and the questions that may be drawn.

In: runs or score files, an exam, a dataset. Out: a ``WeaknessSource`` with its warnings; a ``QuestionPool`` without anything
that overlaps test or dev.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from kmmlu_fast.contamination import overlap
from kmmlu_fast.contamination.check import load_guarded_for_exam
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset as datasets
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import dataset_for_exam
from kmmlu_fast.data.exam_rows import choose_subjects, questions_from_frame, read_exam_frame
from kmmlu_fast.data.subjects import SUBJECTS, find_subjects
from kmmlu_fast.runs.loading import load_run_argument
from kmmlu_fast.runs.run import Run, fill_prediction_columns
from kmmlu_fast.sampling.config import SampleFlags

TRAIN_RUN = "`python -m kmmlu_fast.eval --split train --limit 50`"


@dataclass(frozen=True, slots=True)
class WeaknessSource:
    """Where weakness was read from: ``runs``, and ``run``, the one or all of them as one. ``split`` is None
    for none at all, "train, test" where they differ; score files are taken to be of test.
    """

    run: Run | None = None
    split: str | None = None
    warnings: list[str] = field(default_factory=list)
    runs: Sequence[Run] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionPool:
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


def read_weakness_source(arguments: Sequence[str], strategy: str, exam: Exam | None = None) -> WeaknessSource:
    """The runs or scores that ``--from`` names, with the warnings that the plan and the card will carry."""
    if not arguments:
        if strategy in ("strategic", "errors"):
            raise ConfigError(
                f"--strategy {strategy} needs --from: a run directory ({TRAIN_RUN}) or a score file; or use"
                " --strategy uniform"
            )
        return WeaknessSource()
    runs = [_load_source_run(argument, strategy, exam) for argument in arguments]
    notes = [text for run in runs for text in run.notes]
    for run in runs:
        if (split := _run_split(run)) != "train":
            kind = "scores, taken to be of test" if run.predictions is None else f"a run over {split}"
            notes.append(
                f"weakness comes from {kind}: the sample is tuned to that split, and a later gain on it is"
                f" optimistic; weights that are not come from {TRAIN_RUN}"
            )
    if strategy == "errors":
        notes.append(
            "the run's own train questions are drawn from: they cannot serve as a held-out slice again"
        )
    notes = list(dict.fromkeys(notes))
    log_as_warnings(notes)
    splits = ", ".join(dict.fromkeys(map(_run_split, runs)))
    return WeaknessSource(merge_runs(runs), splits, notes, runs)


def _load_source_run(argument: str, strategy: str, exam: Exam | None) -> Run:
    """The one run of an argument, if it can say where a model is weak on the exam (default: KMMLU)."""
    runs = load_run_argument(argument)
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
    if strategy == "errors" and _run_split(run) != "train":
        raise ConfigError(
            f"--from {argument}: --strategy errors draws the run's own questions, which must be of train, not"
            f" {_run_split(run)}: {TRAIN_RUN}"
        )
    return run


def _run_split(run: Run) -> str:
    return str(run.predictions["split"][0]) if run.predictions is not None else "test"


def merge_runs(runs: Sequence[Run]) -> Run:
    """Several runs as one. A question that several answered counts once: by the mean of their answers in the
    scores, as wrong (with the largest margin) where any was. Score files' counts are added.
    """
    if len(runs) == 1:
        return runs[0]
    answered = [run.predictions for run in runs if run.predictions is not None]
    counts = [run.scores for run in runs if run.predictions is None]
    each: pl.DataFrame | None = None
    if answered:
        share, wrong = pl.col("correct").mean().alias("share"), ~pl.col("correct")
        by_question = ("question_id", "subject", "supercategory", "split")
        each = (
            pl.concat([frame.select(*by_question, "correct", "margin") for frame in answered])
            .group_by(by_question, maintain_order=True)
            .agg(share, pl.col("correct").all(), pl.col("margin").filter(wrong).max())
        )
        right, total = pl.col("share").sum().round().cast(pl.Int64).alias("correct"), pl.len().cast(pl.Int64)
        counts.append(each.group_by("subject", "supercategory").agg(right, total.alias("total")))
        each = fill_prediction_columns(each)
    scores = pl.concat(counts).group_by("subject", "supercategory").agg(pl.col("correct", "total").sum())
    models = dict.fromkeys(str(run.facts["model"]) for run in runs if run.facts.get("model"))
    return Run(
        name=" + ".join(run.name for run in runs),
        kind="run" if answered else "scores",
        source=", ".join(run.source for run in runs),
        predictions=each,
        scores=scores.sort("subject"),
        facts={"model": ", ".join(models)} if models else {},
    )


def build_pool(config: SampleFlags, exam: Exam, source: WeaknessSource) -> QuestionPool:
    """The train split without rows that overlap test or dev, repeated rows, and the rows that
    the run was over.
    """
    found = (_load_kmmlu_train if exam.is_kmmlu else _load_exam_train)(config, exam)
    frame, pairs = found.frame, found.pairs
    notes = list(found.notes)
    place = config.dataset if exam.is_kmmlu else dataset_for_exam(config.dataset, exam, [exam])
    for run in source.runs:
        answered = (run.config.get("config" if exam.is_kmmlu else "exam") or {}).get("dataset")
        if _run_split(run) == "train" and answered not in (None, place):
            notes.append(
                f"the run was over --dataset {answered}, rows come from {place or exam.label}: its questions"
                " cannot be excluded unless both are one"
            )
    notes = list(dict.fromkeys(notes))
    source.warnings.extend(notes)
    log_as_warnings(notes)
    size = len(frame)
    pairs = pairs.join(frame, left_on="train_id", right_on="question_id", how="semi")
    clean = frame.join(pairs, left_on="question_id", right_on="train_id", how="anti", maintain_order="left")
    repeated, conflicting = overlap.repeated_rows(clean)
    clean = clean.filter(~pl.col("question_id").is_in([*repeated, *conflicting]))
    before = len(clean)
    if source.run is not None and config.strategy != "errors" and source.run.predictions is not None:
        clean = clean.join(source.run.predictions, on="question_id", how="anti", maintain_order="left")
    questions = datasets.kmmlu_questions_from_frame(clean) if exam.is_kmmlu else questions_from_frame(clean)
    excluded = before - len(clean)
    return QuestionPool(
        questions=questions,
        size=size,
        overlapping=pairs,
        repeated=repeated,
        conflicting=conflicting,
        excluded=excluded,
        groups=found.groups,
        against=found.against,
    )


@dataclass(frozen=True, slots=True)
class _TrainQuestions:
    """Train questions, the pairs of all of train with test and dev, what must be said about them, every
    subject with its group, and whose test was looked for."""

    frame: pl.DataFrame
    pairs: pl.DataFrame
    notes: Sequence[str]
    groups: dict[str, str]
    against: list[str]


def _load_kmmlu_train(config: SampleFlags, exam: Exam) -> _TrainQuestions:
    subjects = find_subjects(config.subjects)
    known = overlap.train_overlap(config.dataset, config.dataset_revision)
    train = datasets.read_frame(config.dataset, "train", subjects, config.dataset_revision)
    groups = {subject.name: subject.supercategory for subject in subjects}
    return _TrainQuestions(
        train.value, known.value, (*known.notes, *train.notes), groups, [f"{exam.label} test"]
    )


def _load_exam_train(config: SampleFlags, exam: Exam) -> _TrainQuestions:
    place = dataset_for_exam(config.dataset, exam, [exam])
    train = read_exam_frame(exam, "train", place, config.dataset_revision)
    guarded = load_guarded_for_exam(exam, place, config.dataset_revision)
    pairs = overlap.find_overlapping_rows(train.value, guarded.frame)
    frame = choose_subjects(exam, train.value, config.subjects)
    groups = dict(frame.select("subject", "supercategory").unique("subject").sort("subject").iter_rows())
    return _TrainQuestions(frame, pairs, train.notes, groups, guarded.exams)
