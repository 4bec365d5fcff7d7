"""Where training questions come from: the runs that show what is weak, and the questions that may be drawn.

In: runs or score files, a dataset. Out: a ``Source`` with its warnings; a ``Pool`` without anything that
overlaps test or dev.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.notes import warn
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset as datasets
from kmmlu_fast.data import overlap
from kmmlu_fast.data.subjects import SUBJECTS, Subject
from kmmlu_fast.runs.loading import load
from kmmlu_fast.runs.run import Run, complete_frame
from kmmlu_fast.sampling.config import SampleFlags

TRAIN_RUN = "`python -m kmmlu_fast.eval --split train --limit 50`"


@dataclass(frozen=True, slots=True)
class Source:
    """Where weakness was read from: ``runs``, and ``run``, the one or all of them as one. ``split`` is None
    for none at all, "train, test" where they differ; score files are taken to be of test.
    """

    run: Run | None = None
    split: str | None = None
    warnings: list[str] = field(default_factory=list)
    runs: Sequence[Run] = ()


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


def read_source(arguments: Sequence[str], strategy: str) -> Source:
    """The runs or scores that ``--from`` names, with the warnings that the plan and the card will carry."""
    if not arguments:
        if strategy in ("strategic", "errors"):
            raise ConfigError(
                f"--strategy {strategy} needs --from: a run directory ({TRAIN_RUN}) or a score file; or use"
                " --strategy uniform"
            )
        return Source()
    runs = [_run_of(argument, strategy) for argument in arguments]
    notes = [text for run in runs for text in run.notes]
    for run in runs:
        if (split := _split(run)) != "train":
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
    warn(notes)
    splits = ", ".join(dict.fromkeys(map(_split, runs)))
    return Source(pooled(runs), splits, notes, runs)


def _run_of(argument: str, strategy: str) -> Run:
    """The one run of an argument, if it can say where a model is weak on KMMLU."""
    runs = load(argument)
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs[:5])
        raise ConfigError(
            f"--from {argument}: holds {len(runs)} runs ({names}, ...); name one, such as"
            f" {argument}:{runs[0].name}"
        )
    (run,) = runs
    if run.exam != "kmmlu" and (foreign := [name for name in run.scores["subject"] if name not in SUBJECTS]):
        raise ConfigError(
            f"--from {argument}: is a run over {run.exam_title}, whose subjects ({foreign[0]}, ...) are not"
            f" KMMLU's, which rows are drawn from; give {TRAIN_RUN}"
        )
    if strategy == "errors" and run.predictions is None:
        raise RunError(
            f"--from {argument}: --strategy errors needs a run directory with predictions; this holds scores"
            " by subject only"
        )
    if strategy == "errors" and _split(run) != "train":
        raise ConfigError(
            f"--from {argument}: --strategy errors draws the run's own questions, which must be of train, not"
            f" {_split(run)}: {TRAIN_RUN}"
        )
    return run


def _split(run: Run) -> str:
    return str(run.predictions["split"][0]) if run.predictions is not None else "test"


def pooled(runs: Sequence[Run]) -> Run:
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
        each = complete_frame(each)
    scores = pl.concat(counts).group_by("subject", "supercategory").agg(pl.col("correct", "total").sum())
    models = dict.fromkeys(str(run.facts["model"]) for run in runs if run.facts.get("model"))
    return Run(
        " + ".join(run.name for run in runs),
        "run" if answered else "scores",
        ", ".join(run.source for run in runs),
        each,
        scores.sort("subject"),
        facts={"model": ", ".join(models)} if models else {},
    )


def build_pool(config: SampleFlags, subjects: list[Subject], source: Source) -> Pool:
    """The train split without rows that overlap test or dev, repeated rows, and the rows that
    the run was over.
    """
    known = overlap.train_overlap(config.dataset, config.dataset_revision)
    train = datasets.read_frame(config.dataset, "train", subjects, config.dataset_revision)
    pairs, frame = known.value, train.value
    notes = [*known.notes, *train.notes]
    for run in source.runs:
        answered = run.config.get("config", {}).get("dataset")
        if _split(run) == "train" and answered not in (None, config.dataset):
            notes.append(
                f"the run was over --dataset {answered}, rows come from {config.dataset}: its questions"
                " cannot be excluded unless both are one"
            )
    notes = list(dict.fromkeys(notes))
    source.warnings.extend(notes)
    warn(notes)
    size = len(frame)
    pairs = pairs.join(frame, left_on="train_id", right_on="question_id", how="semi")
    clean = frame.join(pairs, left_on="question_id", right_on="train_id", how="anti", maintain_order="left")
    repeated, conflicting = overlap.repeated_rows(clean)
    clean = clean.filter(~pl.col("question_id").is_in([*repeated, *conflicting]))
    before = len(clean)
    if source.run is not None and config.strategy != "errors" and source.run.predictions is not None:
        clean = clean.join(source.run.predictions, on="question_id", how="anti", maintain_order="left")
    return Pool(datasets.to_questions(clean), size, pairs, repeated, conflicting, before - len(clean))
