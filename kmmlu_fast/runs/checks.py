"""What a run's predictions must be for its numbers to mean anything, whoever wrote or edited the file.

In: a frame with PREDICTION_SCHEMA. Out: the same, or RunError that names the file and the question. Knows
nothing of how answers were made.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.foreign import shown
from kmmlu_fast.core.letters import MAX_LOGPROB
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS

_NEVER_NULL = ("question_id", "subject", "supercategory", "split", "row", "answer", "correct")
_LETTERS_OR_NULL = ("prediction", "direct_prediction", "debiased_prediction")


def check_predictions(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Every question once, letters that it has, ``correct`` that agrees with them, log-probabilities that can be.

    RunError names the first question that is not so.
    """
    if frame.is_empty():
        raise RunError(f"{path}: holds no predictions; run eval with --overwrite")
    for name in _NEVER_NULL:
        _refuse(frame, pl.col(name).is_null(), f"has no {name}", path)
    _refuse(frame, pl.col("question_id").is_duplicated(), "stands in two rows", path)
    for name in ("answer", *_LETTERS_OR_NULL):
        place = pl.col(name).replace_strict(list(OPTION_LETTERS), range(len(OPTION_LETTERS)), default=99, return_dtype=pl.Int32)
        known = pl.col(name).is_null() | (place < pl.col("num_options"))
        _refuse(frame, ~known, f"has {name} {{{name}}}, which is none of its {{num_options}} options' letters", path)
    right = (pl.col("prediction") == pl.col("answer")).fill_null(False)
    _refuse(
        frame,
        pl.col("correct") != right,
        "is marked correct={correct}, but answer and prediction are {answer} and {prediction}",
        path,
    )
    for name in LOGPROB_COLUMNS:
        _refuse(
            frame,
            pl.col(name).is_nan() | (pl.col(name) > MAX_LOGPROB),
            f"has {name} {{{name}}}, which is no log-probability",
            path,
        )
    _refuse(
        frame,
        ~pl.col("confidence").is_between(0, 1 + 1e-9),
        "has confidence {confidence}, which is no share from 0 to 1",
        path,
    )
    return frame


def _refuse(frame: pl.DataFrame, wrong: pl.Expr, why: str, path: Path) -> None:
    bad = frame.filter(wrong.fill_null(False))
    if len(bad):
        row = bad.row(0, named=True)
        said = why.format(**{name: shown(value) for name, value in row.items()})
        question = shown(row["question_id"])
        raise RunError(f"{path}: {question} {said}; the file was damaged or edited: run eval with --overwrite")
