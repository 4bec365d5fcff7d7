"""Answers as a run directory holds them: whole files, parts, and the beginning of a random order.

In: a directory, or one of its files. Out: frames in PREDICTION_SCHEMA, or a ``Run`` that stopped early;
RunError for what no evaluation wrote. Knows nothing of writing.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.reading import read_parquet
from kmmlu_fast.core.schema import OPTIONAL_COLUMNS, PREDICTION_SCHEMA
from kmmlu_fast.runs.checks import (
    check_config,
    check_early_stopped_answers,
    check_predictions,
    check_prefix_file,
)
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns

AGAIN = "run eval with --overwrite"
PREFIX, ORDER = "prefix.json", "order.parquet"
_ORDER_SCHEMA = pl.Schema({"question_id": pl.String, "answer": pl.String})


def read_predictions_file(path: Path) -> pl.DataFrame:
    """A file of answers, PREDICTION_SCHEMA; RunError where it is none."""
    try:
        return fill_prediction_columns(
            read_parquet(path, RunError, schema=PREDICTION_SCHEMA, optional=OPTIONAL_COLUMNS)
        )
    except RunError as error:
        raise RunError(f"{error}; {AGAIN}") from error


def load_early_stopped_run(folder: Path, wanted: bool) -> Run:
    """A run that stopped early, as far as it answers from the start of its order; RunError unless
    ``wanted``.
    """
    found, order = check_prefix_file(read_json(folder / PREFIX), folder / PREFIX), read_question_order(folder)
    if not wanted:
        raise RunError(
            f"{folder}: holds the first {found.get('questions', 0):,} of {len(order):,} questions (it stopped"
            " early), which compare reads; for anything else finish it: the same eval command without"
            " --until-decided, --until-precise, --questions and --max-questions"
        )
    stored = read_stored_parts(folder)
    check_early_stopped_answers(order, stored, folder)
    answered = order.join(
        stored.select("question_id", pl.lit(True).alias("answered")),
        on="question_id",
        how="left",
        maintain_order="left",
    )
    missing = answered["answered"].is_null()
    count = int(missing.arg_max() or 0) if missing.any() else len(order)
    rows = (
        order.head(count)
        .select("question_id")
        .join(stored, on="question_id", how="left", maintain_order="left")
    )
    predictions = rows.select(PREDICTION_SCHEMA.names())
    config = check_config(read_json(folder / "config.json"), folder / "config.json")
    metrics = {"prefix": {**found, "questions": count, "total": len(order)}}
    facts = dict(config.get("fingerprint_parts") or {})
    name = str(config.get("name", folder.name))
    return Run(
        name=name,
        kind="run",
        source=str(folder),
        predictions=predictions,
        scores=count_subject_scores(predictions),
        facts=facts,
        config=config,
        environment={},
        metrics=metrics,
        path=folder,
    )


def read_question_order(folder: Path) -> pl.DataFrame:
    """question_id and answer of all questions, in the order in which a run that may stop early asks them."""
    return read_parquet(folder / ORDER, RunError, schema=_ORDER_SCHEMA)


def read_stored_parts(folder: Path) -> pl.DataFrame:
    """The predictions of the parts on disk, PREDICTION_SCHEMA."""
    parts = [read_part(part) for part in sorted((folder / "predictions").glob("part-*.parquet"))]
    return pl.concat(parts) if parts else pl.DataFrame(schema=PREDICTION_SCHEMA)


def read_part(path: Path) -> pl.DataFrame:
    """A part that is there when a run is opened: its answers count as they stand, so they must make sense."""
    with contextlib.suppress(OSError):
        return check_predictions(read_predictions_file(path), path)
    raise RunError(f"{path}: cannot be read; {AGAIN}")


def is_complete_run(folder: Path) -> bool:
    """Whether a finished run is there: metrics.json is written last."""
    return (folder / "metrics.json").exists() and (folder / "predictions.parquet").exists()


def drop_default_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Without the columns that say nothing about four-option questions."""
    other = (frame["num_options"] != 4).any() or frame["option_logprobs"].is_not_null().any()
    return frame if other else frame.drop(OPTIONAL_COLUMNS)
