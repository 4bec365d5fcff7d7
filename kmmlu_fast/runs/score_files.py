"""Score files: correct and total by subject, in JSON or CSV.

In: a file. Out: a frame with SCORE_SCHEMA, or DataError that names the entry. Knows nothing of single questions.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.subjects import find_subject
from kmmlu_fast.runs.run import SCORE_SCHEMA


def read_scores(path: Path) -> pl.DataFrame:
    """A score file, SCORE_SCHEMA: JSON with a list of {subset|subject, correct, total}, or CSV with subject, correct, total."""
    try:
        if path.suffix == ".csv":
            rows: Any = pl.read_csv(path, infer_schema_length=None).to_dicts()
        else:
            document = read_json(path)
            rows = document.get("subset_scores", document.get("subjects", [])) if isinstance(document, dict) else document
    except (json.JSONDecodeError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read as a score file ({str(error).splitlines()[0]})") from error
    if isinstance(rows, dict):
        rows = [{"subject": name, **values} for name, values in rows.items() if isinstance(values, dict)]
    scores = []
    for number, row in enumerate(rows if isinstance(rows, list) else []):
        try:
            subject = find_subject(str(row.get("subset") or row["subject"]))
            total = int(row["total"])
            correct = int(row["correct"]) if row.get("correct") is not None else round(float(row["accuracy"]) * total)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} entry {number}: needs a subject, correct and total ({error!r})") from error
        if not 0 <= correct <= total or total == 0:
            raise DataError(
                f"{path} entry {number}: {subject.name} has {correct} of {total} correct; total must be positive and at least correct"
            )
        scores.append((subject.name, subject.supercategory, correct, total))
    if not scores:
        raise DataError(f"{path}: holds no scores; expected a list of {{subject, correct, total}} (or 'subset_scores')")
    if len({row[0] for row in scores}) != len(scores):
        raise DataError(f"{path}: names a subject twice; keep one entry a subject")
    return pl.DataFrame(scores, schema=SCORE_SCHEMA, orient="row").sort("subject")


def read_json(path: Path) -> Any:
    """JSON; where only the last closing brackets are missing (a public score file is cut like that), with one warning."""
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        for ending in ("}", "]}", "]"):
            try:
                document = json.loads(text + ending)
            except json.JSONDecodeError:
                continue
            warnings.warn(f"{path}: ends without its closing {ending!r}; what is there was read", stacklevel=2)
            return document
        raise error


def score_facts(path: Path) -> dict[str, Any]:
    if path.suffix != ".json":
        return {}
    with warnings.catch_warnings(action="ignore"):
        document = read_json(path)
    return {"model": document["model_id"]} if isinstance(document, dict) and document.get("model_id") else {}
