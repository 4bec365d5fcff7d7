"""What a run's predictions must be for its numbers to mean anything, whoever wrote or edited the file.

In: a frame with PREDICTION_SCHEMA. Out: the same, or RunError that names the file and the question. Knows
nothing of how answers were made.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import NoneType
from typing import Any

import polars as pl
from pydantic import BaseModel, ValidationError

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.letters import MAX_LOGPROB
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr

_AGAIN = "the file was damaged or edited: run eval with --overwrite"
_NEVER_NULL = ("question_id", "subject", "supercategory", "split", "row", "answer", "correct")
_OBJECTS = (
    "speed",
    "engine",
    "reasoning",
    "subjects",
    "supercategories",
    "micro",
    "macro",
    "decision",
    "full_pass",
)  # of metrics.json
_LETTERS_OR_NULL = ("prediction", "direct_prediction", "debiased_prediction")


def check_predictions(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Every question once, letters that it has, ``correct`` that agrees with them, log-probabilities that can
    be.

    RunError names the first question that is not so.
    """
    if frame.is_empty():
        raise RunError(f"{path}: holds no predictions; run eval with --overwrite")
    for name in _NEVER_NULL:
        _refuse_rows(frame, pl.col(name).is_null(), f"has no {name}", path)
    _refuse_rows(frame, pl.col("question_id").is_duplicated(), "stands in two rows", path)
    for name in ("answer", *_LETTERS_OR_NULL):
        place = pl.col(name).replace_strict(
            list(OPTION_LETTERS), range(len(OPTION_LETTERS)), default=99, return_dtype=pl.Int32
        )
        known = pl.col(name).is_null() | (place < pl.col("num_options"))
        _refuse_rows(
            frame,
            ~known,
            f"has {name} {{{name}}}, which is none of its {{num_options}} options' letters",
            path,
        )
    right = (pl.col("prediction") == pl.col("answer")).fill_null(False)
    _refuse_rows(
        frame,
        pl.col("correct") != right,
        "is marked correct={correct}, but answer and prediction are {answer} and {prediction}",
        path,
    )
    for name in LOGPROB_COLUMNS:
        _refuse_rows(
            frame,
            pl.col(name).is_nan() | (pl.col(name) > MAX_LOGPROB),
            f"has {name} {{{name}}}, which is no log-probability",
            path,
        )
    _refuse_rows(
        frame,
        ~pl.col("confidence").is_between(0, 1 + 1e-9),
        "has confidence {confidence}, which is no share from 0 to 1",
        path,
    )
    return frame


def check_config(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """config.json, whose parts are objects where they are there."""
    for name in ("config", "adapter", "fingerprint_parts"):
        if not isinstance(config.get(name, {}), (dict, NoneType)):
            raise RunError(
                f"{path}: {name} is {bounded_repr(config[name])}, not an object; run eval with --overwrite"
            )
    return config


def check_metrics(metrics: dict[str, Any], path: Path) -> dict[str, Any]:
    """What reports read from metrics.json: objects where they look for one, numbers where they count."""
    for name in _OBJECTS:
        if not isinstance(metrics.get(name, {}), (dict, NoneType)):
            raise RunError(
                f"{path}: {name} is {bounded_repr(metrics[name])}, not an object; run eval with --overwrite"
            )
    counts = [("speed", *item) for item in (metrics.get("speed") or {}).items()]
    counts += [
        ("full_pass", *item) for item in (metrics.get("full_pass") or {}).items() if item[1] is not None
    ]
    for part, name, value in counts:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise RunError(
                f"{path}: {part}: {name} is {bounded_repr(value)}, not a number from 0; run eval with --overwrite"
            )
    return metrics


class _Accuracy(BaseModel, allow_inf_nan=False):
    accuracy: float


class _SubjectAccuracy(_Accuracy):
    total: int


class _MicroAccuracy(_Accuracy):
    ci_low: float | None
    ci_high: float | None


class _Baselines(BaseModel, allow_inf_nan=False):
    best_constant: _Accuracy
    subject_majority: float
    uniform: float


class _Speed(BaseModel, allow_inf_nan=False):
    questions: int
    seconds: float
    questions_per_sec: float
    prompt_tokens_per_sec: float


class _SummaryMetrics(BaseModel, allow_inf_nan=False):
    num_questions: int
    unparsed: int
    micro: _MicroAccuracy
    macro: _Accuracy
    subjects: dict[str, _SubjectAccuracy]
    supercategories: dict[str, _Accuracy]
    baselines: _Baselines
    answer_letter_share: dict[str, float]
    predicted_letter_share: dict[str, float]
    recall: dict[str, float | None]
    speed: _Speed
    engine: dict[str, Any]


def check_summary_metrics(metrics: dict[str, Any], path: Path) -> None:
    """What a finished evaluation's summary reads from metrics.json. RunError names what is not there, or not
    what it should be.
    """
    try:
        found = _SummaryMetrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join(map(str, first["loc"]))
        raise RunError(
            f"{path}: {bounded_repr(where)}: {bounded_repr(first['msg'])}; run eval with --overwrite"
        ) from error
    for name in ("predicted_letter_share", "recall"):
        if lost := found.answer_letter_share.keys() - getattr(found, name).keys():
            raise RunError(f"{path}: {name}: lacks {bounded_repr(min(lost))}; run eval with --overwrite")


def check_prefix_file(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """prefix.json: the seed and sizes are counts, the accuracy is an interval of shares, the rest is as in
    metrics.json.
    """
    for name in ("seed", "total", "questions"):
        if type(found.get(name)) is not int or found[name] < 0:
            raise RunError(f"{path}: {name} is {bounded_repr(found.get(name))}, not a count; {_AGAIN}")
    interval = found.get("accuracy")
    if (
        not isinstance(interval, list)
        or len(interval) != 2
        or any(isinstance(end, bool) or not isinstance(end, (int, float)) for end in interval)
        or not 0 <= interval[0] <= interval[1] <= 1
    ):
        raise RunError(f"{path}: accuracy is {bounded_repr(interval)}, not an interval of shares; {_AGAIN}")
    return check_metrics(found, path)


def check_early_stopped_answers(order: pl.DataFrame, stored: pl.DataFrame, folder: Path) -> None:
    """A run that stopped early: every question of the order once, answers to nothing else, no question
    answered twice, and by the key that the order has.
    """
    path = folder / "order.parquet"
    _refuse_rows(
        order, pl.col("question_id").is_null() | pl.col("answer").is_null(), "has no id or answer", path
    )
    _refuse_rows(order, pl.col("question_id").is_duplicated(), "stands in two rows", path)
    parts = folder / "predictions"
    _refuse_rows(stored, pl.col("question_id").is_duplicated(), "was answered twice", parts)
    found = stored.join(order, on="question_id", how="left", suffix="_of_order")
    _refuse_rows(found, pl.col("answer_of_order").is_null(), "is no question of the order", parts)
    _refuse_rows(
        found,
        pl.col("answer") != pl.col("answer_of_order"),
        "has answer {answer}, but {answer_of_order} in the order",
        parts,
    )


def _refuse_rows(frame: pl.DataFrame, wrong: pl.Expr, why: str, path: Path) -> None:
    bad = frame.filter(wrong.fill_null(False))
    if len(bad):
        row = bad.row(0, named=True)
        said = why.format(**{name: bounded_repr(value) for name, value in row.items()})
        question = bounded_repr(row["question_id"])
        raise RunError(f"{path}: {question} {said}; {_AGAIN}")
