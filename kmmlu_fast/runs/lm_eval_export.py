"""Writes a run in lm-evaluation-harness's format: ``results_*.json`` and ``samples_<task>_*.jsonl``.

In: a run over any exam of 2 to 10 options, and the questions if available. Out: the two kinds of file, which
``readers.lm_eval`` can read. What lm-eval has no place for (ids, subjects and exams other than KMMLU's)
stands under the key ``kmmlu_fast``. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.files import distinct_slugs
from kmmlu_fast.core.prediction_frames import logprobs_list
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.core.version import __version__
from kmmlu_fast.data.subjects import SUBJECTS, group_order
from kmmlu_fast.runs.readers.lm_eval_samples import OWN_FIELDS
from kmmlu_fast.runs.readers.lm_eval_tasks import lm_eval_task_name
from kmmlu_fast.runs.run import Run


def lm_eval_files(
    folder: Path, run: Run, predictions: pl.DataFrame, documents: dict[str, dict[str, Any]], stamp: str
) -> dict[Path, bytes]:
    """``results_<stamp>.json`` first, then one ``samples_<task>_<stamp>.jsonl`` per subject, as bytes.

    ``predictions``: the run's, perhaps without texts. ``documents``: the dataset's row of each question id,
    as lm-eval's ``doc``; without one, ``doc`` holds only the key.
    """
    frame = predictions.with_columns(logprobs_list())
    has_all = frame.select((pl.col("logprobs").list.len() == pl.col("num_options")).fill_null(False).all())
    metric = "acc" if has_all.item() else "exact_match"
    parts = _parts_by_task(frame, run, direct=metric == "exact_match")
    results = _results_document(run, frame, parts, metric)
    files = {folder / f"results_{stamp}.json": json.dumps(results, ensure_ascii=False, indent=1).encode()}
    for task, part in parts.items():
        lines = [
            json.dumps(
                _sample_record(row, run, metric, documents.get(row["question_id"])), ensure_ascii=False
            )
            for row in part.sort("row").iter_rows(named=True)
        ]
        content = "".join(f"{line}\n" for line in lines)
        files[folder / f"samples_{task}_{stamp}.jsonl"] = content.encode("utf-8", "backslashreplace")
    return files


def _parts_by_task(frame: pl.DataFrame, run: Run, direct: bool) -> dict[str, pl.DataFrame]:
    """The predictions by task: KMMLU's tasks as lm-eval calls them, others by exam and subject."""
    by_subject = {
        str(subject): part
        for (subject,), part in frame.partition_by("subject", as_dict=True, maintain_order=True).items()
    }
    names = sorted(by_subject)
    if run.exam == "kmmlu" and all(name in SUBJECTS for name in names):
        tasks = [lm_eval_task_name(name, direct) for name in names]
    else:
        top = _top_task(run, direct)
        tasks = [f"{top}_{slug}" for slug in distinct_slugs(name.lower().replace("-", "_") for name in names)]
    return {task: by_subject[name] for task, name in zip(tasks, names, strict=True)}


def _top_task(run: Run, direct: bool) -> str:
    (name,) = distinct_slugs([run.exam.replace("-", "_")])
    return f"{name}_direct" if direct else name


def _results_document(
    run: Run, predictions: pl.DataFrame, parts: dict[str, pl.DataFrame], metric: str
) -> dict[str, Any]:
    """The content of ``results_*.json``. ``parts``: the predictions of each task."""
    results = {task: _task_results(task, part, metric) for task, part in parts.items()}
    top = _top_task(run, direct=metric == "exact_match")
    groups = group_order(set(predictions["supercategory"]))
    slugs = distinct_slugs(group.lower().replace(" ", "_") for group in groups)
    grouped = {top: _task_results(top, predictions, metric)}
    subtasks: dict[str, list[str]] = {top: []}
    for group, slug in zip(groups, slugs, strict=True):
        name = f"{top}_{slug}"
        if name in results:  # a subject of the same name
            name = f"{name}_group"
        grouped[name] = _task_results(name, predictions.filter(pl.col("supercategory") == group), metric)
        subtasks[top].append(name)
        subtasks[name] = [task for task, part in parts.items() if part["supercategory"][0] == group]
    return {
        "results": {**grouped, **results},
        "groups": grouped,
        "group_subtasks": subtasks,
        "versions": dict.fromkeys([*grouped, *results], f"kmmlu_fast {__version__}"),
        "n-shot": dict.fromkeys(results, run.facts.get("num_fewshot")),
        "higher_is_better": {task: {metric: True} for task in results},
        "n-samples": {task: {"original": len(part), "effective": len(part)} for task, part in parts.items()},
        "config": {
            "model": "kmmlu_fast",
            "model_args": json.dumps(run.facts, ensure_ascii=False, default=str),
        },
        "model_name": run.name,
        OWN_FIELDS: _own_document(run, top, parts),
    }


def _own_document(run: Run, top: str, parts: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """What ``readers.lm_eval`` needs to read an exam other than KMMLU again."""
    tasks = {
        task: {"group": top, "subject": part["subject"][0], "supercategory": part["supercategory"][0]}
        for task, part in parts.items()
    }
    return {"exam": {"name": run.exam, "title": run.exam_title, "licence": run.licence}, "tasks": tasks}


def _task_results(task: str, part: pl.DataFrame, metric: str) -> dict[str, Any]:
    n, accuracy = len(part), float(part["correct"].mean() or 0.0)  # type: ignore[arg-type]
    return {
        "alias": task,
        f"{metric},none": accuracy,
        f"{metric}_stderr,none": (accuracy * (1 - accuracy) / (n - 1)) ** 0.5 if n > 1 else "N/A",
    }


def _sample_record(
    row: dict[str, Any], run: Run, metric: str, document: dict[str, Any] | None
) -> dict[str, Any]:
    filtered: list[Any]
    if metric == "acc":
        letters = OPTION_LETTERS[: row["num_options"]]
        filtered = [
            [str(value), str(letter == row["prediction"])]
            for letter, value in zip(letters, row["logprobs"], strict=True)
        ]
        responses = [[pair] for pair in filtered]
    else:
        filtered = [row["prediction"] or (row["texts"] or [""])[0]]
        responses = [[(row["texts"] or filtered)[0]]]
    doc = document or {"answer": OPTION_LETTERS.index(row["answer"]) + 1}
    doc_hash = hashlib.sha256(json.dumps(doc, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    record = {
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
    if run.exam != "kmmlu" or row["num_options"] != 4:
        names = ("question_id", "subject", "supercategory", "split", "num_options")
        record[OWN_FIELDS] = {name: row[name] for name in names}
    return record
