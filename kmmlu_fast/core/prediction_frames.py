"""The one declared polars schema of predictions: a column for each field of ``Prediction``.

In: predictions. Out: frames with these columns. Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np
import polars as pl

from kmmlu_fast.core.schema import LOGPROB_COLUMNS, Prediction

_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "str": pl.String,
    "str | None": pl.String,
    "int": pl.Int32,
    "bool": pl.Boolean,
    "float | None": pl.Float64,
    "list[float] | None": pl.List(pl.Float64),
    "list[int] | None": pl.List(pl.Int32),
    "list[str] | None": pl.List(pl.String),
    "list[str | None] | None": pl.List(pl.String),
}

PREDICTION_SCHEMA = pl.Schema({field.name: _TYPES[str(field.type)] for field in fields(Prediction)})
_READ_COLUMNS = attrgetter(*PREDICTION_SCHEMA)


def logprobs_list() -> pl.Expr:
    """The log-probabilities of a row's letters as one list of any length, A first; null if it has none."""
    four = pl.concat_list(LOGPROB_COLUMNS).list.drop_nulls()
    some = pl.when(four.list.len() > 1).then(four)
    return pl.coalesce(pl.col("option_logprobs"), some).alias("logprobs")


def predictions_frame(predictions: list[Prediction]) -> pl.DataFrame:
    """Predictions as a frame with exactly PREDICTION_SCHEMA."""
    rows = [_READ_COLUMNS(prediction) for prediction in predictions]
    by_column = zip(*rows, strict=True) if rows else ((),) * len(PREDICTION_SCHEMA)
    columns = [
        _make_column(name, list(values)) for name, values in zip(PREDICTION_SCHEMA, by_column, strict=True)
    ]
    return pl.DataFrame(columns, schema=PREDICTION_SCHEMA)


def _make_column(name: str, values: list[Any]) -> pl.Series:
    """Lists of numbers of one length go through an array: polars makes a series of each list otherwise."""
    dtype = PREDICTION_SCHEMA[name]
    if dtype == pl.List(pl.Float64) and values and None not in values and len({*map(len, values)}) == 1:
        return pl.Series(name, np.array(values, dtype=np.float64)).arr.to_list()
    return pl.Series(name, values, dtype=dtype)
