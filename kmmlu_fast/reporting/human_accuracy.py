"""Human accuracy as far as it is known.

In: a dataset's frame. Out: the same with ``human_accuracy`` null instead of 0.0, and how many those are per
subject. KMMLU writes 0.0 if no human results were recorded: all rows of five subjects, some of two more.
Knows nothing of charts or words.
"""

from __future__ import annotations

import polars as pl


def with_known_human_accuracy(questions: pl.DataFrame) -> pl.DataFrame:
    """``questions`` with 0.0 in ``human_accuracy`` as null; unchanged without that column."""
    if "human_accuracy" not in questions.columns:
        return questions
    value = pl.col("human_accuracy")
    return questions.with_columns(pl.when(value > 0).then(value).alias("human_accuracy"))


def partly_unknown_subjects(questions: pl.DataFrame) -> list[tuple[str, int, int]]:
    """Partly known subjects by name: (subject, unknown questions, all questions)."""
    if "human_accuracy" not in questions.columns:
        return []
    count = pl.col("human_accuracy").null_count().alias("unknown"), pl.len().alias("all")
    counts = with_known_human_accuracy(questions).group_by("subject").agg(*count).sort("subject")
    return [row for row in counts.iter_rows() if 0 < row[1] < row[2]]


def wholly_unknown_subjects(questions: pl.DataFrame) -> list[str]:
    """Wholly unknown subjects by name; [] if the dataset has no human accuracy at all."""
    if "human_accuracy" not in questions.columns:
        return []
    counts = (
        with_known_human_accuracy(questions)
        .group_by("subject")
        .agg(pl.col("human_accuracy").count().alias("known"))
        .sort("subject")
    )
    unknown = counts.filter(pl.col("known") == 0)["subject"].to_list()
    return [] if len(unknown) == len(counts) else unknown
