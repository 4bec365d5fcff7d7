"""Reads reports of evalscope: a JSON object with metrics, categories and subsets.

In: the file. Out: a run of scores by subject. Knows nothing of single questions.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.runs.readers.score_files import score_run
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run


def _detect_evalscope(source: RunSource) -> bool:
    metrics = source.fields.get("metrics")
    first = metrics[0] if isinstance(metrics, list) and metrics else None
    return isinstance(first, dict) and "categories" in first and "dataset_name" in source.fields


def _read_evalscope(source: RunSource) -> list[Run]:
    try:
        rows: list[dict[str, Any]] = [
            {"subject": subset["name"], "accuracy": subset["score"], "total": subset["num"]}
            for category in source.fields["metrics"][0]["categories"]
            for subset in category["subsets"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{source.path}: is an evalscope report without scores by subset ({bounded_repr(error)}); write a"
            " table with the columns subject, accuracy and total"
        ) from error
    model = source.fields.get("model_name")
    return [score_run(rows, source, model=str(model) if model else None)]


READER = RunReader(program="evalscope", detect=_detect_evalscope, read=_read_evalscope)
