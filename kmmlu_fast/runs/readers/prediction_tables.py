"""A predictions table as runs: ``FILE.csv`` keyed by ``_config`` and ``_row``, with one column per run.

In: the file, a column's name (None for all), the dataset's key if there is one. Out: ``Run`` records, or
DataError with the row. Knows nothing of statistics.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.core.reading import read_csv
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.subjects import find_subject
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns


def read_predictions_table(path: Path, column: str | None, key: pl.DataFrame | None, split: str) -> list[Run]:
    table = read_csv(path, DataError, lossy=True)
    if table.is_empty():
        raise DataError(f"{path}: has column names and no rows")
    columns = [name for name in table.columns if name not in ("_config", "_row", "answer")]
    if column not in (None, "*"):
        if column not in columns:
            raise RunError(f"{path}: has no column {column!r}; its predictions are {', '.join(columns)}")
        columns = [str(column)]
    rows = table["_row"].cast(pl.Int32, strict=False)
    wrong = rows.is_null() | (rows < 0)
    if wrong.any():
        bad = wrong.arg_max() or 0
        raise DataError(
            f"{path} row {bad}: _row {bounded_repr(table['_row'][bad])} is not a whole number from 0"
        )
    if table["_config"].null_count():
        raise DataError(
            f"{path} row {table['_config'].is_null().arg_max()}: _config is empty; it must name a subject"
        )
    table = table.with_columns(
        _numbers_to_letters(table, name, path) for name in ("answer", *columns) if name in table.columns
    )
    config = table["_config"]
    subjects = {name: find_subject(name) for name in config.unique()}
    names = config.replace_strict({name: subject.name for name, subject in subjects.items()})
    supercategories = {name: subject.supercategory for name, subject in subjects.items()}
    letters = [_letter_or_null(pl.col(name)).alias(f":{name}") for name in columns]
    if "answer" in table.columns:
        letters.append(_letter_or_null(pl.col("answer")).alias("answer"))
    base = table.select(
        pl.format("{}/{}/{}", names, pl.lit(split), rows).alias("question_id"),
        names.alias("subject"),
        config.replace_strict(supercategories).alias("supercategory"),
        pl.lit(split).alias("split"),
        rows.alias("row"),
        *letters,
    )
    repeated = base.filter(pl.col("question_id").is_duplicated())["question_id"]
    if len(repeated):
        raise DataError(f"{path}: {repeated[0]} appears in two rows; keep one row per question")
    base = _join_answer_key(base, key, path)
    return [_column_run(base, name, path) for name in columns]


def _column_run(base: pl.DataFrame, name: str, path: Path) -> Run:
    predictions = _column_predictions(base, name)
    return Run(
        name=name,
        kind="table",
        source=f"{path}:{name}",
        predictions=predictions,
        scores=count_subject_scores(predictions),
    )


def _numbers_to_letters(table: pl.DataFrame, name: str, path: Path) -> pl.Series:
    """The column, with 1-4 (1 = A, as KMMLU's files count) turned into letters.

    DataError if it has other numbers, or both numbers and letters.
    """
    column = table[name].str.strip_chars()
    is_number = column.str.contains(r"^[+-]?\d+(\.0+)?$").fill_null(False)
    if not is_number.any():
        return table[name]
    numbers = column.set(~is_number, None).cast(pl.Float64)
    wrong = (numbers.is_between(1, len(LETTERS)).not_() & is_number).fill_null(False)
    if wrong.any():
        bad = wrong.arg_max() or 0
        raise DataError(
            f"{path} row {bad}: {name} is {column[bad]}; give numbers from 1 (= A) to {len(LETTERS)}, or"
            " letters"
        )
    if column.str.to_uppercase().is_in(LETTERS).any():
        raise DataError(f"{path}: column {bounded_repr(name)} has letters and numbers; give one of the two")
    letters = numbers.replace_strict(
        [float(i) for i in range(1, len(LETTERS) + 1)], list(LETTERS), default=None, return_dtype=pl.String
    )
    return letters.alias(name)


def _letter_or_null(column: pl.Expr) -> pl.Expr:
    """A letter, or null for a blank or a word such as FILTERED."""
    letter = column.str.strip_chars().str.to_uppercase()
    return pl.when(letter.is_in(LETTERS)).then(letter)


def _join_answer_key(base: pl.DataFrame, key: pl.DataFrame | None, path: Path) -> pl.DataFrame:
    if key is not None:
        base = base.join(
            key.select("question_id", pl.col("answer").alias("key")),
            on="question_id",
            how="left",
            maintain_order="left",
        )
        if "answer" not in base.columns:
            base = base.rename({"key": "answer"})
        elif (bad := base.filter(pl.col("answer") != pl.col("key"))).height:
            row = bad.row(0, named=True)
            raise DataError(
                f"{path}: {row['question_id']} has answer {row['answer']}, but {row['key']} in --dataset;"
                " give the dataset it was made from"
            )
    unanswered = base.filter(pl.col("answer").is_null()) if "answer" in base.columns else base
    if len(unanswered):
        missing = unanswered["question_id"][0]
        raise DataError(f"{path}: no answer (A-D) for {missing}; add an answer column or give --dataset")
    return base


def _column_predictions(base: pl.DataFrame, name: str) -> pl.DataFrame:
    prediction = pl.col(f":{name}")
    return fill_prediction_columns(
        base.select(
            "question_id",
            "subject",
            "supercategory",
            "split",
            "row",
            "answer",
            prediction.alias("prediction"),
            (prediction == pl.col("answer")).fill_null(False).alias("correct"),
        )
    )
