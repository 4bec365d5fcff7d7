"""Score files: accuracy by subject, of one model or of several, in JSON or any format of tables.

In: a file with a row per subject (correct and total, or accuracy and total), a row per model and subject
(long), or a column per model (wide). Out: frames with SCORE_SCHEMA; DataError that names a bad entry.
Accuracies are shares or per cent, told by the whole file. Knows nothing of single questions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import ConfigError, DataError, RunError
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.reading import parse_json
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.file_text import read_json_text
from kmmlu_fast.data.subjects import SUPERCATEGORIES, find_subject
from kmmlu_fast.runs.readers.prediction_tables import MODEL_NAMES, SUBJECT_NAMES, find_column
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.readers.table_files import TABLE_SUFFIXES
from kmmlu_fast.runs.run import SCORE_SCHEMA, Run

_SUBJECT_COLUMNS = (*SUBJECT_NAMES, "task", "category")
_CORRECT_NAMES = ("correct", "num_correct", "n_correct", "hits", "맞은 수", "정답 수")
_TOTAL_NAMES = (
    *("total", "n", "count", "num", "size", "questions", "num_questions", "n_questions", "n_samples"),
    *("num_samples", "support", "문항 수", "문항수"),
)
_ACCURACY_NAMES = ("accuracy", "acc", "score", "acc,none", "mean_acc", "정확도", "정답률")
_SUMMARY_ROWS = {
    *("average", "avg", "mean", "overall", "all", "total", "macro", "micro", "kmmlu", "평균", "전체"),
    *(group.lower() for group in SUPERCATEGORIES),
}


def read_score_runs(source: RunSource) -> list[Run]:
    """JSON with a list of {subset|subject, correct, total}, or a table; one run per model.

    Adds a note if only the last closing brackets are missing: a public score file is cut like that.
    """
    facts: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if source.table is not None:
        rows: Any = source.table.to_dicts()
    else:
        content = _read_score_document(source.path)
        rows, facts = _document_rows(content.value, source.path)
        notes = content.notes
    by_model, more_notes = _split_models(rows, source)
    runs = []
    for model, entries in by_model.items():
        run = score_run(entries, source, model=model or None, notes=(*notes, *more_notes))
        runs.append(replace(run, facts={**facts, **run.facts}))
    if source.choice in (None, "*"):
        return runs
    chosen = [run for run in runs if run.name == source.choice]
    if not chosen:
        names = ", ".join(run.name for run in runs[:10])
        raise RunError(f"{source.argument}: has no model {source.choice!r}; it holds {names}")
    return chosen


def score_run(
    rows: list[Any], source: RunSource, *, model: str | None = None, notes: tuple[str, ...] = ()
) -> Run:
    """One model's entries, each with subject, total and correct or accuracy, as a run."""
    parsed = _parse_scores(rows, source)
    return Run(
        name=model or source.stem,
        kind="scores",
        source=source.argument,
        predictions=None,
        scores=parsed.value,
        facts={"model": model} if model else {},
        notes=(*notes, *parsed.notes),
    )


def _document_rows(document: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    """The list of entries in a JSON value, and the model that it names."""
    facts: dict[str, Any] = {}
    if isinstance(document, dict):
        if document.get("model_id"):
            facts["model"] = str(document["model_id"])
        known = document.get("subset_scores", document.get("subjects"))
        if known is None and document and all(_is_number(value) for value in document.values()):
            known = [{"subject": name, "accuracy": value} for name, value in document.items()]
        elif known is None and document and all(_is_score_entry(value) for value in document.values()):
            known = document
        document = known if known is not None else []
    if isinstance(document, dict):
        entries = []
        for name, values in document.items():
            entries.append({"subject": name, **values} if isinstance(values, dict) else values)
        document = entries
    return document, facts


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_score_entry(value: Any) -> bool:
    names = list(value) if isinstance(value, dict) else []
    return bool(find_column(names, _ACCURACY_NAMES) or find_column(names, _CORRECT_NAMES))


def _split_models(rows: Any, source: RunSource) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Entries by model ("" for the file's only one), each with subject, total and correct or accuracy."""
    entries = rows if isinstance(rows, list) else []
    if source.table is None or not entries:
        return {"": entries}, ()
    names = source.table.columns
    subject = find_column(names, _SUBJECT_COLUMNS)
    model = find_column(names, MODEL_NAMES)
    total = find_column(names, _TOTAL_NAMES)
    value = find_column(names, _CORRECT_NAMES) or find_column(names, _ACCURACY_NAMES)
    if subject is None:
        by_column = {name: _subject_name(name) for name in names if name != model}
        subjects = [name for name, known in by_column.items() if known]
        if subjects and model:  # a row per model, a column per subject
            wide: dict[str, list[Any]] = {}
            for row in entries:
                cells = [{"subject": name, "accuracy": row[name]} for name in subjects]
                wide[str(row[model])] = [cell for cell in cells if cell["accuracy"] is not None]
            return wide, ()
        raise DataError(
            f"{source.path}: has no column that names subjects (subject, subset); its columns are"
            f" {', '.join(names[:10])}: neither scores nor predictions can be read from it"
        )
    if model and value:  # a row per model and subject
        long: dict[str, list[Any]] = {}
        for row in entries:
            long.setdefault(str(row[model]), []).append(row)
        return (long if len(long) > 1 else {"": entries}), ()
    if value:
        return {"": entries}, ()
    models = [
        name for name in names if name not in (subject, model, total) and _is_accuracy_column(source, name)
    ]
    if not models:
        return {"": entries}, ()
    columns: dict[str, list[Any]] = {}
    for name in models:
        cells = [row for row in entries if row[name] is not None]
        columns[name] = [
            {"subject": row[subject], "accuracy": row[name], "total": row[total] if total else None}
            for row in cells
        ]
    others = [name for name in names if name not in (subject, total, *models)]
    notes = (f"{source.path}: left out, as they hold no accuracies: {', '.join(others[:10])}",)
    return columns, notes if others else ()


def _is_accuracy_column(source: RunSource, name: str) -> bool:
    assert source.table is not None
    values = [_parse_float(text) for text in source.table[name].drop_nulls()]
    return bool(values) and all(value is not None and 0 <= value <= 100 for value in values)


def _parse_float(value: Any) -> float | None:
    try:
        return float(value.strip().removesuffix("%")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _subject_name(text: Any) -> str | None:
    try:
        return find_subject(str(text)).name
    except ConfigError:
        return None


def _parse_scores(rows: list[Any], source: RunSource) -> WithNotes[pl.DataFrame]:
    path, scores, left_out = source.path, [], []
    in_percent = _is_in_percent(rows)
    sizes = _subject_sizes(source.key)
    for number, row in enumerate(rows):
        where = f"{path} entry {number}"
        try:
            column = find_column(list(row), _SUBJECT_COLUMNS)
            text = str(row[column] if column else row["subject"])
            if text.strip().lower() in _SUMMARY_ROWS:
                left_out.append(text)
                continue
            subject = find_subject(text)
            correct, total = _correct_and_total(row, sizes.get(subject.name), in_percent, where)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"{where}: needs a subject, correct and total ({bounded_repr(error)})") from error
        if not 0 <= correct <= total or total == 0:
            raise DataError(
                f"{where}: {subject.name} has {correct} of {total} correct; total must be positive and at"
                " least correct"
            )
        scores.append((subject.name, subject.supercategory, correct, total))
    if not scores:
        raise DataError(
            f"{path}: holds no scores; expected a list of {{subject, correct, total}} (or 'subset_scores')"
        )
    if len({row[0] for row in scores}) != len(scores):
        raise DataError(f"{path}: names a subject twice; keep one entry per subject")
    notes = []
    if in_percent:
        notes.append(f"{path}: its accuracies are taken as per cent")
    if left_out:
        notes.append(f"{path}: rows that are no subjects are left out: {', '.join(left_out[:10])}")
    frame = pl.DataFrame(scores, schema=SCORE_SCHEMA, orient="row").sort("subject")
    return WithNotes(frame, tuple(notes))


def _correct_and_total(
    row: dict[str, Any], size: int | None, in_percent: bool, where: str
) -> tuple[int, int]:
    """An entry's counts. ``size``: how many questions the subject has, if the dataset is at hand."""
    names = list(row)
    total_column = find_column(names, _TOTAL_NAMES)
    correct_column = find_column(names, _CORRECT_NAMES)
    accuracy_column = find_column(names, _ACCURACY_NAMES)
    total = row[total_column] if total_column else None
    if total is None:
        total = size
    if total is None and accuracy_column:
        raise DataError(
            f"{where}: says how accurate a subject is, but not over how many questions; add a column total"
            " (or n), or give --dataset, whose questions are counted"
        )
    count = _parse_count(row["total"] if total is None else total)
    if correct_column and row[correct_column] is not None:
        return _parse_count(row[correct_column]), count
    accuracy = row[accuracy_column] if accuracy_column else row["accuracy"]
    return _correct_count(accuracy, count, in_percent), count


def _is_in_percent(rows: list[Any]) -> bool:
    """Whether the file's accuracies are per cent: one is above 1, or has the sign."""
    for row in rows:
        name = find_column(list(row), _ACCURACY_NAMES) if isinstance(row, dict) else None
        value = row[name] if name else None
        if isinstance(value, str) and value.strip().endswith("%"):
            return True
        number = _parse_float(value)
        if number is not None and number > 1:
            return True
    return False


def _subject_sizes(key: pl.DataFrame | None) -> dict[str, int]:
    if key is None or "subject" not in key.columns:
        return {}
    counts = key.group_by("subject").len()
    return dict(zip(counts["subject"], counts["len"], strict=True))


def _parse_count(value: Any) -> int:
    """A whole number from 0, as a number or as digits."""
    number = float(value) if isinstance(value, str) else value
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float))
        or number != int(number)
        or not 0 <= number < 1e9
    ):
        raise ValueError(f"{bounded_repr(value)} is not a count")
    return int(number)


def _correct_count(accuracy: Any, total: int, in_percent: bool) -> int:
    number = _parse_float(accuracy)
    share = number / 100 if number is not None and in_percent else number
    if share is None or not 0 <= share <= 1:
        unit = "per cent from 0 to 100" if in_percent else "a share from 0 to 1"
        raise ValueError(f"accuracy {bounded_repr(accuracy)} is not {unit}")
    return round(share * total)


def _read_score_document(path: Path) -> WithNotes[Any]:
    text = read_json_text(path)
    try:
        return WithNotes(parse_json(text, str(path), DataError))
    except DataError:
        for ending in ("}", "]}", "]"):
            try:
                document = parse_json(text + ending, str(path), DataError)
            except DataError:
                continue
            return WithNotes(document, (f"{path}: ends without its closing {ending!r}; the rest was read",))
        raise


def _detect_score_file(source: RunSource) -> bool:
    return source.suffix in TABLE_SUFFIXES


READER = RunReader(program="score file", detect=_detect_score_file, read=read_score_runs)
