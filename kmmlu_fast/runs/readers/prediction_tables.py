"""Tables of predictions: a row per question, and a column per model (or one model per row).

In: a table of texts keyed by subject and row (``_config``, ``_row``) or by question id, perhaps a column's
name, and the dataset's key if there is one. Out: ``Run`` records, or DataError with the row. Columns that
hold no letters are no models; they are named in a note. Knows nothing of statistics.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import ConfigError, DataError, RunError
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.subjects import find_subject
from kmmlu_fast.runs.readers.letter_cells import LetterColumn, read_letter_column
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns

# The names that a column may have, the likeliest first; case does not count.
SUBJECT_NAMES = ("_config", "subject", "subset", "config", "subject_name", "과목")
_ROW_NAMES = ("_row", "row", "doc_id", "index", "idx", "row_id", "번호")
_ID_NAMES = ("question_id", "qid")
_ANSWER_NAMES = ("answer", "gold", "target", "label", "key", "correct_answer", "ground_truth", "gt", "정답")
_PREDICTION_NAMES = ("prediction", "pred", "predicted", "response", "model_answer", "output", "예측")
MODEL_NAMES = ("model", "run", "model_name", "model_id", "모델")
# Columns of questions and of our own exports: letters or numbers in them are no predictions.
_OTHER_NAMES = {
    *("split", "supercategory", "category", "group", "question", "options", "choices", "correct"),
    *("is_correct", "num_options", "human_accuracy", "human accuracy", "difficulty", "level", "korean"),
    *("direct_prediction", "debiased_prediction", "read_by", "forced", "prompt_tokens", "output_tokens"),
}
_LEAST_SHARE = 0.5  # of a column's cells that must be letters, if nobody names the column


def find_column(names: list[str], wanted: tuple[str, ...]) -> str | None:
    """The first of the wanted names that the table has; case does not count."""
    known = {name.strip().lower(): name for name in reversed(names)}
    return next((known[name] for name in wanted if name in known), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Which column holds what."""

    question_id: str | None
    subject: str | None
    row: str | None
    answer: str | None
    model: str | None  # of a table with one model per row
    prediction: str | None


def _find_layout(table: pl.DataFrame) -> _Layout | None:
    names = table.columns
    layout = _Layout(
        question_id=find_column(names, _ID_NAMES),
        subject=find_column(names, SUBJECT_NAMES),
        row=find_column(names, _ROW_NAMES),
        answer=find_column(names, _ANSWER_NAMES),
        model=find_column(names, MODEL_NAMES),
        prediction=find_column(names, _PREDICTION_NAMES),
    )
    return layout if layout.question_id or (layout.subject and layout.row) else None


def _detect_prediction_table(source: RunSource) -> bool:
    return source.table is not None and _find_layout(source.table) is not None


def read_prediction_table(source: RunSource) -> list[Run]:
    """One run per column of letters, or per model of a table with one model per row."""
    table, path = source.table, source.path
    layout = _find_layout(table) if table is not None else None
    if table is None or layout is None:
        raise DataError(f"{path}: has no columns _config and _row (or question_id)")
    if table.is_empty():
        raise DataError(f"{path}: has column names and no rows")
    if layout.model and layout.prediction and table[layout.model].n_unique() > 1:
        return _read_long_table(table, layout, source)
    base = _key_questions(table, layout, source)
    columns, notes = _prediction_columns(table, layout, source)
    base = _join_answer_key(base, source.key, path)
    runs = []
    for name, column in columns.items():
        generic = name == layout.prediction and len(columns) == 1
        runs.append(_column_run(base, column.letters, source.stem if generic else name, name, path, notes))
        notes = ()  # said once
    return runs


def _read_long_table(table: pl.DataFrame, layout: _Layout, source: RunSource) -> list[Run]:
    assert layout.model and layout.prediction
    parts = table.partition_by(layout.model, as_dict=True, maintain_order=True)
    models = {str(model): part for (model,), part in parts.items()}
    choice = source.choice if source.choice not in (None, "*") else None
    if choice is not None and choice not in models:
        raise RunError(
            f"{source.path}: has no model {choice!r}; its {layout.model} column has {', '.join(models)}"
        )
    runs = []
    for model, part in models.items():
        if choice in (None, model):
            base = _join_answer_key(_key_questions(part, layout, source), source.key, source.path)
            letters = _read_column(part, layout.prediction, source)
            runs.append(_column_run(base, letters.letters, model, model, source.path, ()))
    return runs


def _key_questions(table: pl.DataFrame, layout: _Layout, source: RunSource) -> pl.DataFrame:
    """Columns question_id, subject, supercategory, split, row, and answer if the table has it."""
    if layout.question_id:
        base = _questions_by_id(table, layout.question_id, source)
    else:
        base = _questions_by_subject(table, layout, source)
    if layout.answer:
        base = base.with_columns(_read_column(table, layout.answer, source).letters.alias("answer"))
    repeated = base.filter(pl.col("question_id").is_duplicated())["question_id"]
    if len(repeated):
        raise DataError(f"{source.path}: {repeated[0]} appears in two rows; keep one row per question")
    return base


def _questions_by_subject(table: pl.DataFrame, layout: _Layout, source: RunSource) -> pl.DataFrame:
    path = source.path
    assert layout.subject and layout.row
    numbers = table[layout.row].str.strip_chars().str.replace(r"\.0+$", "").cast(pl.Int32, strict=False)
    wrong = numbers.is_null() | (numbers < 0)
    if wrong.any():
        bad = wrong.arg_max() or 0
        raise DataError(
            f"{path} row {bad}: {layout.row} {bounded_repr(table[layout.row][bad])} is not a whole number"
            " from 0"
        )
    config = table[layout.subject]
    if config.null_count():
        raise DataError(
            f"{path} row {config.is_null().arg_max()}: {layout.subject} is empty; it must name a subject"
        )
    subjects = {name: find_subject(name) for name in config.unique()}
    names = config.replace_strict({name: subject.name for name, subject in subjects.items()})
    groups = config.replace_strict({name: subject.supercategory for name, subject in subjects.items()})
    return table.select(
        pl.format("{}/{}/{}", names, pl.lit(source.split), numbers).alias("question_id"),
        names.alias("subject"),
        groups.alias("supercategory"),
        pl.lit(source.split).alias("split"),
        numbers.alias("row"),
    )


def _questions_by_id(table: pl.DataFrame, column: str, source: RunSource) -> pl.DataFrame:
    """By ids such as Law/test/17: what they mean is in the dataset, or in KMMLU's ids themselves."""
    ids = table.select(pl.col(column).alias("question_id"))
    columns = ["subject", "supercategory", "split", "row"]
    if source.key is not None and set(columns) <= set(source.key.columns):
        known = source.key.select("question_id", *columns)
        base = ids.join(known, on="question_id", how="left", maintain_order="left")
        if not base["subject"].null_count():
            return base
    rows = []
    for number, text in enumerate(ids["question_id"]):
        parts = str(text).split("/")
        try:
            subject = find_subject(parts[0])
            split, row = parts[1], int(parts[2])
        except (ConfigError, IndexError, ValueError) as error:
            if source.key is not None and len(source.key):
                raise DataError(_foreign_id_message(ids["question_id"], number, column, source)) from error
            raise DataError(
                f"{source.path} row {number}: {column} {bounded_repr(text)} is not an id such as Law/test/17;"
                " for another exam give --dataset or --exam as well"
            ) from error
        rows.append((text, subject.name, subject.supercategory, split, row))
    schema = {
        "question_id": pl.String,
        "subject": pl.String,
        "supercategory": pl.String,
        "split": pl.String,
        "row": pl.Int32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _foreign_id_message(ids: pl.Series, number: int, column: str, source: RunSource) -> str:
    """Of ids that are neither all the exam's nor all KMMLU's: which one the exam does not have. ``number``:
    the first row that is not KMMLU's.
    """
    assert source.key is not None
    foreign = ~ids.is_in(source.key["question_id"].implode())
    row = number if foreign[number] else foreign.arg_max() or 0
    return (
        f"{source.path} row {row}: {column} {bounded_repr(ids[row])} is not in the dataset or exam that was"
        f" given, whose ids are such as {source.key['question_id'][0]}"
    )


def _read_column(table: pl.DataFrame, name: str, source: RunSource) -> LetterColumn:
    letters = _option_columns(source.key) or list(LETTERS)
    return read_letter_column(table[name], str(source.path), len(letters))


def _option_columns(key: pl.DataFrame | None) -> list[str]:
    return [letter for letter in OPTION_LETTERS if key is not None and letter in key.columns]


def _prediction_columns(
    table: pl.DataFrame, layout: _Layout, source: RunSource
) -> tuple[dict[str, LetterColumn], tuple[str, ...]]:
    """The columns that are models, and a note on those that are not."""
    keys = {layout.question_id, layout.subject, layout.row, layout.answer, layout.model}
    names = [name for name in table.columns if name not in keys]
    if source.choice not in (None, "*"):
        return {str(source.choice): _chosen_column(table, names, source)}, ()
    if layout.prediction and layout.model:
        names = [layout.prediction]
    columns = _letter_columns(table, names, source)
    if not names:
        raise DataError(f"{source.path}: has no column of predictions; add one per model, with the letters")
    if not columns:
        raise DataError(_no_letters_message(table, names[0], source.path))
    left_out = [name for name in names if name not in columns]
    if not left_out:
        return columns, ()
    shown = ", ".join(bounded_repr(name) for name in left_out[:10])
    return columns, (
        f"{source.path}: left out, as they hold no answer letters: {shown} (to take one anyway, name it as"
        f" {source.path.name}:{left_out[0]})",
    )


def _chosen_column(table: pl.DataFrame, names: list[str], source: RunSource) -> LetterColumn:
    name = str(source.choice)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise RunError(f"{source.path}: has no column {name!r}{hint}; its predictions are {', '.join(names)}")
    column = _read_column(table, name, source)
    if not column.kind:
        raise RunError(_no_letters_message(table, name, source.path))
    return column


def _letter_columns(table: pl.DataFrame, names: list[str], source: RunSource) -> dict[str, LetterColumn]:
    """The columns of which at least half of the cells are letters. Numbers beside letters (a level, a count
    of options) are none.
    """
    columns: dict[str, LetterColumn] = {}
    for name in names:
        if not _is_other_name(name) and not _looks_like_text(table[name]):
            column = _read_column(table, name, source)
            if column.kind and column.share >= _LEAST_SHARE:
                columns[name] = column
    if any(column.kind == "letters" for column in columns.values()):
        return {name: column for name, column in columns.items() if column.kind == "letters"}
    return columns


def _is_other_name(name: str) -> bool:
    lower = name.strip().lower()
    known = lower in _OTHER_NAMES or lower in _ANSWER_NAMES or lower.startswith("logprob_")
    return known or name in OPTION_LETTERS


def _looks_like_text(column: pl.Series) -> bool:
    """Whether half of its cells are longer than any way to write a letter."""
    lengths = column.drop_nulls().str.len_chars()
    return bool(len(lengths)) and float((lengths > 12).mean() or 0) > _LEAST_SHARE  # type: ignore[arg-type]


def _no_letters_message(table: pl.DataFrame, name: str, path: Path) -> str:
    example = next((value for value in table[name] if value), "")
    return (
        f"{path}: column {bounded_repr(name)} holds no letters (such as {bounded_repr(example)}); give"
        " answers as A to D, (A), ①, 2번 or 1 to 4"
    )


def _column_run(
    base: pl.DataFrame, letters: pl.Series, name: str, column: str, path: Path, notes: tuple[str, ...]
) -> Run:
    answered = base.with_columns(letters.alias("prediction"))
    correct = (pl.col("prediction") == pl.col("answer")).fill_null(False)
    predictions = fill_prediction_columns(answered.with_columns(correct.alias("correct")))
    return Run(
        name=name,
        kind="table",
        source=f"{path}:{column}",
        predictions=predictions,
        scores=count_subject_scores(predictions),
        notes=notes,
    )


def _join_answer_key(base: pl.DataFrame, key: pl.DataFrame | None, path: Path) -> pl.DataFrame:
    if key is not None:
        columns = [pl.col("answer").alias("key")]
        if options := _option_columns(key):
            columns.append(pl.sum_horizontal(pl.col(options).is_not_null()).alias("num_options"))
        base = base.join(
            key.select("question_id", *columns),
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
    return base.with_columns(pl.col("num_options").fill_null(4)) if "num_options" in base.columns else base


READER = RunReader(program="predictions table", detect=_detect_prediction_table, read=read_prediction_table)
