"""Reads results of lighteval: ``results_<time>.json`` with ``config_general``, and tasks called
``suite|task:subject|shots``.

In: a file, or a directory that holds one. Out: a run of scores by subject. Knows nothing of its details
files (Parquet), which hold single answers in a layout of each version's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ConfigError, DataError, RunError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.data.subjects import find_subject
from kmmlu_fast.runs.readers.score_files import score_run
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run

_METRICS = ("acc", "extractive_match", "em", "exact_match", "acc_norm")


def _is_lighteval(document: dict[str, Any]) -> bool:
    return isinstance(document.get("results"), dict) and "config_general" in document


def _results_files(path: Path) -> list[Path]:
    files = sorted(path.rglob("results_*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            if _is_lighteval(read_json(file, DataError)):
                found.append(file)
        except DataError:
            continue
    return found


def _detect_lighteval(source: RunSource) -> bool:
    return bool(_results_files(source.path)) if source.path.is_dir() else _is_lighteval(source.fields)


def _read_lighteval(source: RunSource) -> list[Run]:
    files = _results_files(source.path)
    if len(files) > 1:
        names = ", ".join(str(file) for file in files[:5])
        raise RunError(f"{source.argument}: holds {len(files)} results of lighteval ({names}); name one")
    document = read_json(files[0], DataError)
    sizes = document.get("summary_tasks") or {}
    rows = []
    for task, values in document["results"].items():
        subject = _subject_of_task(task)
        metric = next((name for name in _METRICS if isinstance(values, dict) and name in values), None)
        if subject is None or metric is None:
            continue
        size = sizes.get(task) if isinstance(sizes, dict) else None
        total = size.get("effective_num_docs") if isinstance(size, dict) else None
        total = total or (size.get("original_num_docs") if isinstance(size, dict) else None)
        rows.append({"subject": subject, "accuracy": values[metric], "total": total})
    if not rows:
        shown = ", ".join(list(document["results"])[:5])
        raise DataError(
            f"{files[0]}: is a results file of lighteval without KMMLU subjects (its tasks: {shown}); write a"
            " table with the columns subject, accuracy and total"
        )
    general = document["config_general"]
    model = general.get("model_name") if isinstance(general, dict) else None
    return [score_run(rows, source, model=str(model) if model else None)]


def _subject_of_task(task: str) -> str | None:
    """``community|kmmlu:Law|0`` -> Law."""
    parts = task.split("|")
    name = parts[1] if len(parts) > 1 else task
    family, colon, subject = name.partition(":")
    if "kmmlu" not in family.lower() or not colon:
        return None
    try:
        return find_subject(subject).name
    except ConfigError:
        return None


READER = RunReader(program="lighteval", detect=_detect_lighteval, read=_read_lighteval)
