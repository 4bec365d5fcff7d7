"""Checks that a run's files make sense, whoever wrote or edited them.

In: a frame with PREDICTION_SCHEMA, or a JSON document. Out: the same, or RunError that names the file and the
question or key. Knows nothing of how answers were made.
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
from kmmlu_fast.runs.optional_metrics import check_optional_metrics

_DAMAGED = "the file was damaged or edited: run eval with --overwrite"
_NEVER_NULL = ("question_id", "subject", "supercategory", "split", "row", "answer", "correct")
_CONFIG_OBJECTS = ("config", "adapter", "fingerprint_parts", "exam")
_METRICS_OBJECTS = (
    "speed",
    "engine",
    "reasoning",
    "subjects",
    "supercategories",
    "micro",
    "macro",
    "decision",
    "full_pass",
)
_LETTERS_OR_NULL = ("prediction", "direct_prediction", "debiased_prediction")


def check_predictions(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Each question once, letters its question has, ``correct`` that agrees with them, possible
    log-probabilities. RunError names the first question that breaks one of these.
    """
    if frame.is_empty():
        raise RunError(f"{path}: holds no predictions; run eval with --overwrite")
    for name in _NEVER_NULL:
        _refuse_rows(frame, pl.col(name).is_null(), f"has no {name}", path)
    _refuse_rows(frame, pl.col("question_id").is_duplicated(), "appears in two rows", path)
    for name in ("answer", *_LETTERS_OR_NULL):
        place = pl.col(name).replace_strict(
            list(OPTION_LETTERS), range(len(OPTION_LETTERS)), default=99, return_dtype=pl.Int32
        )
        known = pl.col(name).is_null() | (place < pl.col("num_options"))
        problem = f"has {name} {{{name}}}, which is not a letter of its {{num_options}} options"
        _refuse_rows(frame, ~known, problem, path)
    right = (pl.col("prediction") == pl.col("answer")).fill_null(False)
    problem = "is marked correct={correct}, but answer and prediction are {answer} and {prediction}"
    _refuse_rows(frame, pl.col("correct") != right, problem, path)
    for name in LOGPROB_COLUMNS:
        impossible = pl.col(name).is_nan() | (pl.col(name) > MAX_LOGPROB)
        _refuse_rows(frame, impossible, f"has {name} {{{name}}}, which is not a log-probability", path)
    for name in ("spaced", "bare"):
        values = pl.col(f"{name}_logprobs")
        wrong = (values.list.len() != pl.col("num_options")) | values.list.eval(
            pl.element().is_null() | pl.element().is_nan() | (pl.element() > MAX_LOGPROB)
        ).list.any()
        _refuse_rows(frame, wrong, f"has {name}_logprobs that are not one log-probability per option", path)
        mass = pl.col(f"{name}_mass")
        problem = f"has {name}_mass {{{name}_mass}}, which is not a share from 0 to 1"
        _refuse_rows(frame, ~mass.is_between(0, 1 + 1e-9), problem, path)
        _refuse_rows(frame, mass.is_null() != values.is_null(), f"lacks {name}_mass or {name}_logprobs", path)
    outside = ~pl.col("confidence").is_between(0, 1 + 1e-9)
    _refuse_rows(frame, outside, "has confidence {confidence}, which is not a share from 0 to 1", path)
    return frame


def check_config(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """config.json: the parts it has are objects, and an adapter has a name."""
    _refuse_non_objects(config, _CONFIG_OBJECTS, path)
    adapter = config.get("adapter") or {}
    for name, types in (("name", str), ("path", (str, NoneType))):
        if adapter and not isinstance(adapter.get(name), types):
            raise RunError(
                f"{path}: adapter: {name} is {bounded_repr(adapter.get(name))}, not a text; run eval with"
                " --overwrite"
            )
    return config


def check_metrics(metrics: dict[str, Any], path: Path) -> dict[str, Any]:
    """The parts of metrics.json that reports read: objects, and numbers from 0 for speed."""
    _refuse_non_objects(metrics, _METRICS_OBJECTS, path)
    numbers = [("speed", name, value) for name, value in (metrics.get("speed") or {}).items()]
    for name, value in (metrics.get("full_pass") or {}).items():
        if value is not None:
            numbers.append(("full_pass", name, value))
    for part, name, value in numbers:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise RunError(
                f"{path}: {part}: {name} is {bounded_repr(value)}, not a number from 0; run eval with"
                " --overwrite"
            )
    check_optional_metrics(metrics, path)
    return metrics


def _refuse_non_objects(document: dict[str, Any], names: tuple[str, ...], path: Path) -> None:
    for name in names:
        if not isinstance(document.get(name, {}), (dict, NoneType)):
            raise RunError(
                f"{path}: {name} is {bounded_repr(document[name])}, not an object; run eval with --overwrite"
            )


class _Accuracy(BaseModel, allow_inf_nan=False):
    accuracy: float


class _ConstantAccuracy(_Accuracy):
    letter: str


class _SubjectAccuracy(_Accuracy):
    total: int


class _MicroAccuracy(_Accuracy):
    ci_low: float | None
    ci_high: float | None


class _Baselines(BaseModel, allow_inf_nan=False):
    best_constant: _ConstantAccuracy
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
    """The parts of metrics.json that a finished evaluation's summary reads. RunError names the first that is
    missing or invalid.
    """
    try:
        summary = _SummaryMetrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join(map(str, first["loc"]))
        raise RunError(
            f"{path}: {bounded_repr(where)}: {bounded_repr(first['msg'])}; run eval with --overwrite"
        ) from error
    for name in ("predicted_letter_share", "recall"):
        missing = summary.answer_letter_share.keys() - getattr(summary, name).keys()
        if missing:
            raise RunError(f"{path}: {name}: lacks {bounded_repr(min(missing))}; run eval with --overwrite")


def check_prefix_file(prefix: dict[str, Any], path: Path) -> dict[str, Any]:
    """prefix.json: seed and sizes are counts, accuracy is an interval of shares, the rest is as in
    metrics.json.
    """
    for name in ("seed", "total", "questions"):
        if type(prefix.get(name)) is not int or prefix[name] < 0:
            raise RunError(f"{path}: {name} is {bounded_repr(prefix.get(name))}, not a count; {_DAMAGED}")
    interval = prefix.get("accuracy")
    if (
        not isinstance(interval, list)
        or len(interval) != 2
        or any(isinstance(end, bool) or not isinstance(end, (int, float)) for end in interval)
        or not 0 <= interval[0] <= interval[1] <= 1
    ):
        raise RunError(f"{path}: accuracy is {bounded_repr(interval)}, not an interval of shares; {_DAMAGED}")
    return check_metrics(prefix, path)


def check_early_stopped_answers(order: pl.DataFrame, stored: pl.DataFrame, folder: Path) -> None:
    """A run that stopped early: each question of the order once, no answer to other questions, no question
    answered twice, and the same key as in the order.
    """
    path, parts = folder / "order.parquet", folder / "predictions"
    incomplete = pl.col("question_id").is_null() | pl.col("answer").is_null()
    repeated = pl.col("question_id").is_duplicated()
    _refuse_rows(order, incomplete, "has no id or answer", path)
    _refuse_rows(order, repeated, "appears in two rows", path)
    _refuse_rows(stored, repeated, "was answered twice", parts)
    joined = stored.join(order, on="question_id", how="left", suffix="_of_order")
    _refuse_rows(joined, pl.col("answer_of_order").is_null(), "is not a question of the order", parts)
    differs = pl.col("answer") != pl.col("answer_of_order")
    _refuse_rows(joined, differs, "has answer {answer}, but {answer_of_order} in the order", parts)


def _refuse_rows(frame: pl.DataFrame, wrong: pl.Expr, problem: str, path: Path) -> None:
    bad = frame.filter(wrong.fill_null(False))
    if len(bad):
        values = {name: bounded_repr(value) for name, value in bad.row(0, named=True).items()}
        raise RunError(f"{path}: {values['question_id']} {problem.format(**values)}; {_DAMAGED}")
