"""The train questions that a search is decided on: a slice to choose recipes, a slice to find weak subjects.

In: an exam, settings, the base's run over both slices. Out: question ids; a run over the second slice alone,
which ``sample`` reads. No question of either slice is ever trained on. Reads the train split only.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import write_parquet_atomically
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data.dataset import select_questions
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.exam_source import find_exam_sources
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.runs.run import Run

SPLIT = "train"


def shrink_slices(config: ImproveConfig) -> ImproveConfig:
    """With the default slices, if they are all train questions: such as leave a quarter of them, and a note.
    As given if the user chose one.
    """
    if {"selection", "weakness"} & config.model_fields_set:
        return config
    (source,) = find_exam_sources([DEFAULT_EXAM], config.dataset, config.dataset_revision)
    largest = max(Counter(source.read_split(SPLIT).value["subject"]).values(), default=0)
    if largest > config.selection + config.weakness:
        return config
    both = 3 * largest // 4
    weakness = max(both // 3, 1)
    selection = max(both - weakness, 1)
    log_note(
        f"note: {source.label} has at most {largest} train questions of a subject: --selection is"
        f" {selection}, not {config.selection}, and --weakness {weakness}, not {config.weakness}"
    )
    return config.model_copy(update={"selection": selection, "weakness": weakness})


def selection_question_ids(config: ImproveConfig) -> frozenset[str]:
    """The questions on which recipes are chosen: the seeded first of each subject, as ``eval --limit`` takes
    them. ConfigError if both slices together leave no train question to learn from.
    """
    (source,) = find_exam_sources([DEFAULT_EXAM], config.dataset, config.dataset_revision)
    questions = source.read_questions(SPLIT).log_and_unwrap()
    both = select_questions(questions, config.selection + config.weakness, "random", config.seed)
    if len(both) == len(questions):
        raise ConfigError(
            f"--selection {config.selection} --weakness {config.weakness}: these are all {len(questions):,}"
            f" train questions of {source.label}, and none is left to train on; give numbers whose sum is"
            f" less than {_largest_subject(questions)}, the questions of its largest subject"
        )
    chosen = select_questions(questions, config.selection, "random", config.seed)
    return frozenset(question.question_id for question in chosen)


def _largest_subject(questions: Iterable[Question]) -> int:
    return max(Counter(question.subject for question in questions).values(), default=0)


def write_weakness_run(base: Run, selection: frozenset[str], folder: Path) -> Path:
    """A copy of the base's run without the selection questions: which subjects are weak must not be read from
    the questions on which recipes are then compared.
    """
    if (folder / "metrics.json").exists():
        return folder
    if base.path is None:
        raise ConfigError(f"{base.name}: has no run directory")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rest = base.frame.filter(~pl.col("question_id").is_in(sorted(selection)))
    write_parquet_atomically(folder / "predictions.parquet", rest)
    for name in ("config.json", "environment.json", "metrics.json"):
        shutil.copyfile(base.path / name, folder / name)
    return folder
