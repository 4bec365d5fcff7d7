"""Score files: correct and total by subject, in JSON or CSV.

In: a file. Out: a frame with SCORE_SCHEMA and the model's name; DataError that names a bad entry. Knows
nothing of single questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.reading import MAX_JSON_BYTES, parse_json, read_csv, read_text
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.subjects import find_subject
from kmmlu_fast.runs.run import SCORE_SCHEMA


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """The content of a score file."""

    scores: pl.DataFrame  # SCORE_SCHEMA
    facts: dict[str, Any]  # the model, if it is named
    notes: tuple[str, ...] = ()


def read_score_file(path: Path) -> ScoreFile:
    """JSON with a list of {subset|subject, correct, total}, or CSV with subject, correct, total.

    Adds a note if only the last closing brackets are missing: a public score file is cut like that.
    """
    if path.suffix == ".csv":
        return ScoreFile(_parse_scores(read_csv(path, DataError).to_dicts(), path), {})
    content = _read_score_document(path)
    document, facts = content.value, {}
    if isinstance(document, dict):
        if document.get("model_id") and path.suffix == ".json":
            facts["model"] = str(document["model_id"])
        document = document.get("subset_scores", document.get("subjects", []))
    return ScoreFile(_parse_scores(document, path), facts, content.notes)


def _parse_scores(rows: Any, path: Path) -> pl.DataFrame:
    if isinstance(rows, dict):
        by_subject, rows = rows, []
        for name, values in by_subject.items():
            rows.append({"subject": name, **values} if isinstance(values, dict) else values)
    scores = []
    for number, row in enumerate(rows if isinstance(rows, list) else []):
        try:
            subject = find_subject(str(row.get("subset") or row["subject"]))
            total = _parse_count(row["total"])
            if row.get("correct") is not None:
                correct = _parse_count(row["correct"])
            else:
                correct = _correct_count(row["accuracy"], total)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{path} entry {number}: needs a subject, correct and total ({bounded_repr(error)})"
            ) from error
        if not 0 <= correct <= total or total == 0:
            raise DataError(
                f"{path} entry {number}: {subject.name} has {correct} of {total} correct; total must be"
                " positive and at least correct"
            )
        scores.append((subject.name, subject.supercategory, correct, total))
    if not scores:
        raise DataError(
            f"{path}: holds no scores; expected a list of {{subject, correct, total}} (or 'subset_scores')"
        )
    if len({row[0] for row in scores}) != len(scores):
        raise DataError(f"{path}: names a subject twice; keep one entry per subject")
    return pl.DataFrame(scores, schema=SCORE_SCHEMA, orient="row").sort("subject")


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


def _correct_count(accuracy: Any, total: int) -> int:
    share = float(accuracy)
    if not 0 <= share <= 1:
        raise ValueError(f"accuracy {bounded_repr(accuracy)} is not a share from 0 to 1")
    return round(share * total)


def _read_score_document(path: Path) -> WithNotes[Any]:
    text = read_text(path, DataError, MAX_JSON_BYTES)
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
