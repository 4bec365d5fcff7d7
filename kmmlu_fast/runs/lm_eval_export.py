"""Writes a run in lm-evaluation-harness's format: ``results_*.json`` and ``samples_<task>_*.jsonl``.

In: predictions, facts of the run, and the questions if available. Out: the two kinds of file, which
``lm_eval`` can read. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.files import write_bytes_atomically, write_json_atomically
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS
from kmmlu_fast.core.version import __version__
from kmmlu_fast.data.subjects import SUBJECTS, SUPERCATEGORIES
from kmmlu_fast.runs.readers.lm_eval import lm_eval_task_name


def write_lm_eval(
    folder: Path,
    name: str,
    predictions: pl.DataFrame,
    facts: dict[str, Any],
    documents: dict[str, dict[str, Any]],
    stamp: str,
) -> list[Path]:
    """``results_<stamp>.json`` and one ``samples_<task>_<stamp>.jsonl`` per subject, in lm-eval's format.

    ``documents``: the dataset's row of each question id, as lm-eval's ``doc``; without one, ``doc`` holds
    only the key.
    """
    direct = predictions[LOGPROB_COLUMNS[0]].null_count() == len(predictions)
    metric = "exact_match" if direct else "acc"
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, pl.DataFrame] = {}  # by task
    written = []
    by_subject = predictions.group_by("subject", maintain_order=True)
    for (subject,), part in sorted(by_subject, key=lambda item: str(item[0][0])):
        task = lm_eval_task_name(str(subject), direct)
        file = folder / f"samples_{task}_{stamp}.jsonl"
        samples = (
            _sample_record(row, metric, documents.get(row["question_id"]))
            for row in part.sort("row").iter_rows(named=True)
        )
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        write_bytes_atomically(file, lines.encode("utf-8", "backslashreplace"))
        written.append(file)
        parts[task] = part
    file = folder / f"results_{stamp}.json"
    write_json_atomically(file, _results_document(name, predictions, parts, facts, metric))
    return [file, *written]


def _results_document(
    name: str, predictions: pl.DataFrame, parts: dict[str, pl.DataFrame], facts: dict[str, Any], metric: str
) -> dict[str, Any]:
    """The content of ``results_*.json``. ``parts``: the predictions of each task."""
    results = {task: _task_results(task, part, metric) for task, part in parts.items()}
    groups: dict[str, list[str]] = {group: [] for group in SUPERCATEGORIES}
    for task, part in parts.items():
        groups[SUBJECTS[str(part["subject"][0])].supercategory].append(task)
    top = "kmmlu_direct" if metric == "exact_match" else "kmmlu"
    names = {group: f"{top}_{group.lower().replace(' ', '_')}" for group, tasks in groups.items() if tasks}
    grouped = {top: _task_results(top, predictions, metric)}
    subtasks = {top: list(names.values())}
    for group, task in names.items():
        grouped[task] = _task_results(task, predictions.filter(pl.col("supercategory") == group), metric)
        subtasks[task] = groups[group]
    return {
        "results": {**grouped, **results},
        "groups": grouped,
        "group_subtasks": subtasks,
        "versions": dict.fromkeys([*grouped, *results], f"kmmlu_fast {__version__}"),
        "n-shot": dict.fromkeys(results, facts.get("num_fewshot")),
        "higher_is_better": {task: {metric: True} for task in results},
        "n-samples": {task: {"original": len(part), "effective": len(part)} for task, part in parts.items()},
        "config": {"model": "kmmlu_fast", "model_args": json.dumps(facts, ensure_ascii=False, default=str)},
        "model_name": name,
    }


def _task_results(task: str, part: pl.DataFrame, metric: str) -> dict[str, Any]:
    n, accuracy = len(part), float(part["correct"].mean() or 0.0)  # type: ignore[arg-type]
    return {
        "alias": task,
        f"{metric},none": accuracy,
        f"{metric}_stderr,none": (accuracy * (1 - accuracy) / (n - 1)) ** 0.5 if n > 1 else "N/A",
    }


def _sample_record(row: dict[str, Any], metric: str, document: dict[str, Any] | None) -> dict[str, Any]:
    filtered: list[Any]
    if metric == "acc":
        filtered = [
            [str(row[column]), str(letter == row["prediction"])]
            for letter, column in zip(LETTERS, LOGPROB_COLUMNS, strict=True)
        ]
        responses = [[pair] for pair in filtered]
    else:
        filtered = [row["prediction"] or (row["texts"] or [""])[0]]
        responses = [[(row["texts"] or filtered)[0]]]
    doc = document or {"answer": LETTERS.index(row["answer"]) + 1}
    doc_hash = hashlib.sha256(json.dumps(doc, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    return {
        "doc_id": row["row"],
        "doc": doc,
        "target": row["answer"],
        "arguments": {},
        "resps": responses,
        "filtered_resps": filtered,
        "filter": "none",
        "metrics": [metric],
        "doc_hash": doc_hash,
        "prompt_hash": row["prompt_digest"],
        "target_hash": hashlib.sha256(row["answer"].encode()).hexdigest(),
        metric: float(row["correct"]),
    }
