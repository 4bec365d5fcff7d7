"""Accuracies by task in lm-evaluation-harness's results document.

In: the document, a task, a filter's name. Out: correct and total; DataError if a number cannot be. Knows
nothing of samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.subjects import Subject

_METRICS = ("acc", "exact_match")


def task_filters(values: dict[str, Any]) -> list[str]:
    """Names of the filters that its accuracies were read by, "none" for plain ones."""
    names = []
    for metric in values:
        name, _, filter_name = metric.partition(",")
        if name in _METRICS:
            names.append(filter_name or "none")
    return list(dict.fromkeys(names))


def task_score(
    document: dict[str, Any], task: str, filter_name: str, subject: Subject, path: Path
) -> tuple[str, str, int, int]:
    """A row of SCORE_SCHEMA."""
    values = document["results"][task]
    plain = [] if filter_name != "none" else list(_METRICS)
    metrics = [f"{metric},{filter_name}" for metric in _METRICS] + plain
    metric = next(name for name in metrics if name in values)
    accuracy = values[metric]
    if not isinstance(accuracy, (int, float)) or isinstance(accuracy, bool) or not 0 <= accuracy <= 1:
        raise DataError(
            f"{path}: {task} has {metric} {bounded_repr(accuracy)}; it must be a share from 0 to 1"
        )
    counts = document.get("n-samples")
    sizes = counts.get(task) if isinstance(counts, dict) else None
    sizes = sizes if isinstance(sizes, dict) else {}
    total = sizes.get("effective") or sizes.get("original") or values.get("sample_len")
    total = total or _total_from_stderr(accuracy, values.get(_stderr_name(metric)))
    if not total:
        raise DataError(
            f"{path}: {task} has no number of questions ('n-samples'); give lm-eval's samples_*.jsonl as well"
        )
    if not isinstance(total, int) or isinstance(total, bool) or not 0 < total < 10**9:
        raise DataError(
            f"{path}: {task} has {bounded_repr(total)} questions; it must be a whole number from 1"
        )
    return subject.name, subject.supercategory, round(accuracy * total), total


def _stderr_name(metric: str) -> str:
    name, comma, filter_name = metric.partition(",")
    return f"{name}_stderr{comma}{filter_name}"


def _total_from_stderr(accuracy: float, stderr: Any) -> int | None:
    """Files before 0.4.2 count no questions; lm-eval's standard error is sqrt(p (1 - p) / (n - 1))."""
    is_number = isinstance(stderr, (int, float)) and not isinstance(stderr, bool)
    if not is_number or not 0 < accuracy < 1 or not 1e-6 < stderr < 1:
        return None
    total = accuracy * (1 - accuracy) / stderr**2 + 1
    is_whole = abs(total - round(total)) < 1e-3
    fits = abs(accuracy * round(total) - round(accuracy * round(total))) < 1e-3
    return round(total) if is_whole and fits else None
