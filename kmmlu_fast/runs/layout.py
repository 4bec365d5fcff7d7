"""Reads the files of a run directory: whole files, parts, and runs that stopped early.

In: a directory, or one of its files. Out: frames in PREDICTION_SCHEMA, or a ``Run``; RunError for anything an
evaluation did not write. Knows nothing of writing.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.core.schema import CHAIN_COLUMNS, FORM_COLUMNS, OPTION_COLUMNS, OPTIONAL_COLUMNS
from kmmlu_fast.core.table_files import read_parquet
from kmmlu_fast.runs.checks import (
    check_config,
    check_early_stopped_answers,
    check_predictions,
)
from kmmlu_fast.runs.metrics import Metrics, PrefixMetrics, parse_metrics
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns

OVERWRITE_HINT = "run eval with --overwrite"
PREFIX, ORDER = "prefix.json", "order.parquet"
_ORDER_SCHEMA = pl.Schema({"question_id": pl.String, "answer": pl.String})


def read_predictions_file(path: Path) -> pl.DataFrame:
    """A file of answers, PREDICTION_SCHEMA; RunError if it is not one."""
    try:
        return fill_prediction_columns(
            read_parquet(path, RunError, schema=PREDICTION_SCHEMA, optional=OPTIONAL_COLUMNS)
        )
    except RunError as error:
        raise RunError(f"{error}; {OVERWRITE_HINT}") from error


def read_run_config(folder: Path) -> dict[str, Any]:
    """config.json of a run directory, checked."""
    return check_config(read_json(folder / "config.json"), folder / "config.json")


def build_directory_run(
    folder: Path,
    predictions: pl.DataFrame,
    config: dict[str, Any],
    metrics: Metrics,
    environment: dict[str, Any],
    prefix: PrefixMetrics | None = None,
) -> Run:
    """The record of a run directory's contents."""
    return Run(
        name=str(config.get("name", folder.name)),
        kind="run",
        source=str(folder),
        predictions=predictions,
        scores=count_subject_scores(predictions),
        facts=dict(config.get("fingerprint_parts") or {}),
        config=config,
        environment=environment,
        metrics=metrics,
        prefix=prefix,
        path=folder,
    )


def load_early_stopped_run(folder: Path, wanted: bool) -> Run:
    """A run that stopped early, up to its order's first unanswered question; RunError unless ``wanted``."""
    prefix = parse_metrics(read_json(folder / PREFIX), folder / PREFIX, PrefixMetrics)
    order = read_question_order(folder)
    if not wanted:
        raise RunError(
            f"{folder}: holds the first {prefix.questions:,} of {len(order):,} questions (it stopped"
            " early), which only compare reads; for anything else finish it: the same eval command without"
            " --until-decided, --until-precise, --questions and --max-questions"
        )
    stored = read_stored_parts(folder)
    check_early_stopped_answers(order, stored, folder)
    unanswered = ~order["question_id"].is_in(stored["question_id"].to_list())
    count = int(unanswered.arg_max() or 0) if unanswered.any() else len(order)
    answered = order.head(count).select("question_id")
    rows = answered.join(stored, on="question_id", how="left", maintain_order="left")
    prefix = prefix.model_copy(update={"questions": count, "total": len(order)})
    predictions = rows.select(PREDICTION_SCHEMA.names())
    config = read_run_config(folder)
    return build_directory_run(folder, predictions, config, Metrics(), environment={}, prefix=prefix)


def read_question_order(folder: Path) -> pl.DataFrame:
    """question_id and answer of all questions, in the order that a run that may stop early asks them; in an
    adaptive order also its ``weight_<place>`` columns.
    """
    path = folder / ORDER
    order = read_parquet(path, RunError, schema=_ORDER_SCHEMA)
    stored = read_parquet(path, RunError)
    return order.hstack(stored.select(name for name in stored.columns if name.startswith("weight_")))


def read_stored_parts(folder: Path) -> pl.DataFrame:
    """The predictions of the parts on disk, PREDICTION_SCHEMA."""
    parts = [read_part(part) for part in sorted((folder / "predictions").glob("part-*.parquet"))]
    return pl.concat(parts) if parts else pl.DataFrame(schema=PREDICTION_SCHEMA)


def read_part(path: Path) -> pl.DataFrame:
    """A part on disk. Its answers count as they are, so they are checked."""
    with contextlib.suppress(OSError):
        return check_predictions(read_predictions_file(path), path)
    raise RunError(f"{path}: cannot be read; {OVERWRITE_HINT}")


def is_complete_run(folder: Path) -> bool:
    """Whether the directory holds a finished run: metrics.json is written last."""
    return (folder / "metrics.json").exists() and (folder / "predictions.parquet").exists()


def drop_default_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame without OPTION_COLUMNS if every question has four options, and without FORM_COLUMNS and
    CHAIN_COLUMNS if no question has them.
    """
    frame = frame.drop([name for name in CHAIN_COLUMNS if frame[name].is_null().all()])
    if (frame["num_options"] == 4).all() and frame["option_logprobs"].is_null().all():
        frame = frame.drop(OPTION_COLUMNS)
    has_forms = frame["spaced_mass"].is_not_null().any() or frame["bare_mass"].is_not_null().any()
    return frame if has_forms else frame.drop(FORM_COLUMNS)
