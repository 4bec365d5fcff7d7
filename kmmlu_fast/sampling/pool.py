"""The runs that show what is weak, and the questions that may be drawn.

In: runs or score files, an exam, a dataset. Out: a ``WeaknessSource`` with its warnings; a ``QuestionPool``
without questions that overlap test or dev.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from kmmlu_fast.contamination import overlap
from kmmlu_fast.contamination.check import find_train_split_overlap
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_source import ExamSource
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.runs.loading import load_run_argument, only_run
from kmmlu_fast.runs.run import Run, fill_prediction_columns
from kmmlu_fast.sampling.config import SampleFlags

TRAIN_RUN = "`python -m kmmlu_fast.eval --split train --limit 50`"


@dataclass(frozen=True, slots=True)
class WeaknessSource:
    """Where weakness was read from: ``runs``, and ``run``, all of them merged.

    ``split`` is None without runs, and "train, test" if they differ; score files count as test.
    """

    run: Run | None = None
    split: str | None = None
    warnings: list[str] = field(default_factory=list)
    runs: Sequence[Run] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionPool:
    """Training questions that may be drawn, and what was left out: overlaps, repeats, rows of the run."""

    questions: list[Question]
    size: int
    overlapping: pl.DataFrame
    repeated: list[str]
    conflicting: list[str]
    excluded: int
    groups: dict[str, str] = field(default_factory=dict)  # supercategory of every subject to draw from
    against: list[str] = field(default_factory=list)  # exams whose test and dev questions were searched for

    @property
    def dropped(self) -> pl.DataFrame:
        """Rows that the guard left out: ``kind``, and the test or dev question they overlap (else null)."""
        rows = [(question_id, None, "repeated", None) for question_id in self.repeated]
        rows += [(question_id, None, "conflicting", None) for question_id in self.conflicting]
        return pl.concat([self.overlapping, pl.DataFrame(rows, schema=overlap.PAIR_SCHEMA, orient="row")])


def read_weakness_source(arguments: Sequence[str], strategy: str, exam: Exam | None = None) -> WeaknessSource:
    """The runs or scores that ``--from`` names, with the warnings for the plan and the data card."""
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
        split = _run_split(run)
        if split != "train":
            kind = "scores, taken to be of test" if run.predictions is None else f"a run over {split}"
            notes.append(
                f"weakness comes from {kind}: the sample is tuned to that split, so a later gain on it is"
                f" optimistic; to avoid that, give a run of {TRAIN_RUN}"
            )
    if strategy == "errors":
        notes.append("the run's own train questions are drawn: they cannot serve as a held-out set again")
    notes = list(dict.fromkeys(notes))
    log_as_warnings(notes)
    splits = ", ".join(dict.fromkeys(map(_run_split, runs)))
    return WeaknessSource(merge_runs(runs), splits, notes, runs)


def _load_source_run(argument: str, strategy: str, exam: Exam | None) -> Run:
    """The one run of an argument, if it can show where a model is weak on the exam (default: KMMLU)."""
    run = only_run(argument, load_run_argument(argument))
    if exam is not None and exam.name != DEFAULT_EXAM:
        if run.exam != exam.name and run.predictions is not None:
            raise ConfigError(
                f"--from {argument}: is a run over {run.exam_title}; rows of {exam.label} need a run over"
                f" {exam.label}: `python -m kmmlu_fast.eval --exam {exam.name} --split train --limit 50`"
            )
    elif run.exam != DEFAULT_EXAM:
        foreign = [name for name in run.scores["subject"] if name not in SUBJECTS]
        if foreign:
            raise ConfigError(
                f"--from {argument}: is a run over {run.exam_title}, whose subjects ({foreign[0]}, ...) are"
                f" not KMMLU's, but rows are drawn from KMMLU; give a run of {TRAIN_RUN}"
            )
    if strategy == "errors" and run.predictions is None:
        raise RunError(
            f"--from {argument}: --strategy errors needs a run directory with predictions; this has only"
            " scores by subject"
        )
    if strategy == "errors" and _run_split(run) != "train":
        raise ConfigError(
            f"--from {argument}: --strategy errors draws the run's own questions, which must be of train, not"
            f" {_run_split(run)}; give a run of {TRAIN_RUN}"
        )
    return run


def _run_dataset(run: Run) -> str | None:
    """The ``--dataset`` that a run was over, if its directory says."""
    facts = run.config.get("exam") or run.config.get("config") or {}
    place = facts.get("dataset")
    return None if place is None else str(place)


def _run_split(run: Run) -> str:
    return str(run.predictions["split"][0]) if run.predictions is not None else "test"


def merge_runs(runs: Sequence[Run]) -> Run:
    """Several runs as one. A question that several answered counts once: in the scores by the mean of its
    answers, in the predictions as wrong (with the largest margin) if any was. Score files' counts are added.
    """
    if len(runs) == 1:
        return runs[0]
    answered = [run.predictions for run in runs if run.predictions is not None]
    counts = [run.scores for run in runs if run.predictions is None]
    merged: pl.DataFrame | None = None
    if answered:
        share, wrong = pl.col("correct").mean().alias("share"), ~pl.col("correct")
        by_question = ("question_id", "subject", "supercategory", "split")
        merged = (
            pl.concat([frame.select(*by_question, "correct", "margin") for frame in answered])
            .group_by(by_question, maintain_order=True)
            .agg(share, pl.col("correct").all(), pl.col("margin").filter(wrong).max())
        )
        right, total = pl.col("share").sum().round().cast(pl.Int64).alias("correct"), pl.len().cast(pl.Int64)
        counts.append(merged.group_by("subject", "supercategory").agg(right, total.alias("total")))
        merged = fill_prediction_columns(merged)
    scores = pl.concat(counts).group_by("subject", "supercategory").agg(pl.col("correct", "total").sum())
    models = dict.fromkeys(str(run.facts["model"]) for run in runs if run.facts.get("model"))
    return Run(
        name=" + ".join(run.name for run in runs),
        kind="run" if answered else "scores",
        source=", ".join(run.source for run in runs),
        predictions=merged,
        scores=scores.sort("subject"),
        facts={"model": ", ".join(models)} if models else {},
    )


def build_pool(
    config: SampleFlags, rows: ExamSource, source: WeaknessSource, kept_out: frozenset[str] = frozenset()
) -> QuestionPool:
    """The train split without rows that overlap test or dev, repeated rows, the run's own questions, and
    those of ``kept_out``.
    """
    train = _load_train_questions(config, rows)
    notes = list(train.notes)
    for run in source.runs:
        answered = _run_dataset(run)
        if _run_split(run) == "train" and answered not in (None, rows.dataset):
            notes.append(
                f"the run was over --dataset {answered}, but rows come from {rows.label}: its"
                " questions are excluded only if both have the same ids"
            )
    notes = list(dict.fromkeys(notes))
    source.warnings.extend(notes)
    log_as_warnings(notes)
    frame = train.frame
    pairs = train.pairs.join(frame, left_on="train_id", right_on="question_id", how="semi")
    clean = frame.join(pairs, left_on="question_id", right_on="train_id", how="anti", maintain_order="left")
    repeated, conflicting = overlap.repeated_rows(clean)
    clean = clean.filter(~pl.col("question_id").is_in([*repeated, *conflicting]))
    before = len(clean)
    if source.run is not None and config.strategy != "errors" and source.run.predictions is not None:
        clean = clean.join(source.run.predictions, on="question_id", how="anti", maintain_order="left")
    if kept_out:
        clean = clean.filter(~pl.col("question_id").is_in(sorted(kept_out)))
    return QuestionPool(
        questions=rows.make_questions(clean),
        size=len(frame),
        overlapping=pairs,
        repeated=repeated,
        conflicting=conflicting,
        excluded=before - len(clean),
        groups=train.groups,
        against=train.against,
    )


@dataclass(frozen=True, slots=True)
class _TrainQuestions:
    """The questions of a train split, and their overlap with test and dev."""

    frame: pl.DataFrame
    pairs: pl.DataFrame  # of all train questions with test and dev
    notes: Sequence[str]
    groups: dict[str, str]  # supercategory by subject
    against: list[str]  # exams that were searched


def _load_train_questions(config: SampleFlags, rows: ExamSource) -> _TrainQuestions:
    train = rows.read_split("train", config.subjects)
    found = find_train_split_overlap(rows)
    return _TrainQuestions(
        frame=train.value,
        pairs=found.pairs,
        notes=(*found.notes, *train.notes),
        groups=rows.subject_groups(train.value, config.subjects),
        against=found.exams,
    )
