"""Checks that a run's files make sense, whoever wrote or edited them.

In: a frame with PREDICTION_SCHEMA, or a JSON document. Out: the same, or RunError that names the file and the
question or key. Knows nothing of how answers were made.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.letters import MAX_LOGPROB
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr

_DAMAGED = "the file was damaged or edited: run eval with --overwrite"
_NEVER_NULL = ("question_id", "subject", "supercategory", "split", "row", "answer", "correct")
_CONFIG_OBJECTS = ("config", "adapter", "fingerprint_parts", "exam")
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
    first = pl.col("budgets").drop_nulls().first()
    wrong = (pl.col("budgets") != first) | (pl.col("budget_predictions").list.len() != first.list.len())
    _refuse_rows(
        frame, wrong, "has other budgets than the first question, or other letters than budgets", path
    )
    counted = pl.col("sample_tokens").list.len() != pl.col("texts").list.len()
    _refuse_rows(frame, counted, "has other sample_tokens than texts", path)
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


def _refuse_non_objects(document: dict[str, Any], names: tuple[str, ...], path: Path) -> None:
    for name in names:
        if not isinstance(document.get(name, {}), (dict, NoneType)):
            raise RunError(
                f"{path}: {name} is {bounded_repr(document[name])}, not an object; run eval with --overwrite"
            )


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
