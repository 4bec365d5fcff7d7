"""Public answers that ship with the package, as runs.

In: ``published:NAME``, and the dataset's frame if there is one. Out: ``Run``s over KMMLU's test questions;
ConfigError for a name of nothing or of a figure alone, and for another split; RunError if the dataset has
another key. Knows nothing of statistics.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.runs.published import (
    ANSWERS_TABLE,
    PUBLISHED_EXAM,
    PUBLISHED_PREFIX,
    PublishedRun,
    find_published_runs,
    load_published_answers,
)
from kmmlu_fast.runs.readers.prediction_tables import read_prediction_table
from kmmlu_fast.runs.readers.source import RunSource
from kmmlu_fast.runs.run import Run


def read_published_runs(argument: str, key: pl.DataFrame | None = None, split: str = "test") -> list[Run]:
    """The runs of the argument. ``key``: question_id and answer of the dataset whose texts are shown."""
    published = find_published_runs(argument)
    if not published:
        raise ConfigError(
            f"{argument}: only a figure is known, not the answers; compare sets it beside a run:"
            f" kmmlu-fast compare RUN {argument}"
        )
    if split != "test":
        raise ConfigError(
            f"{argument}: has answers to {PUBLISHED_EXAM}'s test split; leave out --split {split}"
        )
    runs = [_read_published_run(each) for each in published]
    if key is not None and "answer" in key.columns:
        _check_key(argument, runs[0], key)
    return runs


def _read_published_run(published: PublishedRun) -> Run:
    argument = PUBLISHED_PREFIX + published.name
    source = RunSource(argument=argument, path=ANSWERS_TABLE, choice=published.name)
    answers = load_published_answers()
    facts = {
        "model": published.model,
        "prompt_style": answers.prompt_style,
        "output_type": answers.output_type,
        "num_fewshot": published.num_fewshot,
        "answers_from": f"{answers.source}, {answers.date}",
    }
    (run,) = read_prediction_table(source)
    return replace(run, source=argument, facts=facts)


def _check_key(argument: str, run: Run, key: pl.DataFrame) -> None:
    """RunError if the dataset has these questions' ids with other answers: it is not KMMLU."""
    wanted = key.select("question_id", pl.col("answer").alias("other"))
    differing = run.frame.join(wanted, on="question_id").filter(pl.col("answer") != pl.col("other"))
    if len(differing):
        row = differing.row(0, named=True)
        raise RunError(
            f"{argument}: answers {PUBLISHED_EXAM}'s test questions, and this dataset is another:"
            f" {row['question_id']} has key {row['answer']} there, {row['other']} here; name runs over"
            f" {PUBLISHED_EXAM}, or give --dataset none"
        )
