"""Writes a run as a log of inspect_ai (``.eval``), which ``inspect view`` and ``read_eval_log`` open.

In: a run, and the questions' texts if available. Out: the log's bytes; ``readers.inspect_log`` reads them
back. Knows nothing of inspect_ai's code: the layout is version 2 of its log schema, compressed by deflate,
which every Python reads.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import polars as pl

from kmmlu_fast.core.prediction_frames import logprobs_list
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.core.version import __version__
from kmmlu_fast.runs.readers.inspect_log import OWN_METADATA
from kmmlu_fast.runs.run import Run

_VERSION = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip's own times: the same run makes the same bytes


def inspect_log_bytes(
    run: Run, predictions: pl.DataFrame, documents: dict[str, dict[str, Any]], time: str
) -> bytes:
    """The log. ``predictions``: the run's, perhaps without texts. ``documents``: question and options by id
    (``lm_eval_documents``); without one the sample's input is its id. ``time``: ISO 8601, with its zone.
    """
    frame = predictions.with_columns(logprobs_list())
    model = str(run.facts.get("model") or run.name)
    samples = [_sample(row, documents.get(row["question_id"]), model) for row in frame.iter_rows(named=True)]
    for sample in samples:  # it becomes a name within the zip, which must not point out of it
        sample["id"] = sample["id"].replace("..", "__")
    header = _header(run, samples, model, time)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        start = {name: header[name] for name in ("version", "eval", "plan")}
        _add(archive, "_journal/start.json", start)
        for sample in samples:
            _add(archive, f"samples/{sample['id']}_epoch_1.json", sample)
        _add(archive, "summaries.json", [_summary(sample) for sample in samples])
        _add(archive, "header.json", header)
    return content.getvalue()


def _add(archive: zipfile.ZipFile, name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, default=str)
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, text.encode("utf-8", "backslashreplace"))


def _sample(row: dict[str, Any], document: dict[str, Any] | None, model: str) -> dict[str, Any]:
    letters = OPTION_LETTERS[: row["num_options"]]
    choices = [str((document or {}).get(letter, letter)) for letter in letters]
    text = "\n\n".join(value for value in row["texts"] or [] if value)
    answer = row["prediction"] or ""
    metadata = {name: row[name] for name in ("subject", "supercategory", "split", "row", "read_by")}
    if row["logprobs"] is not None:
        metadata["logprobs"] = dict(zip(letters, row["logprobs"], strict=False))
    question = str((document or {}).get("question") or row["question_id"])
    message = {"role": "assistant", "content": text or answer, "model": model, "source": "generate"}
    return {
        "id": row["question_id"],
        "epoch": 1,
        "input": question,
        "choices": choices,
        "target": row["answer"],
        "messages": [{"role": "user", "content": question, "source": "input"}, message],
        "output": {
            "model": model,
            "choices": [{"message": message, "stop_reason": "stop"}],
            "completion": text or answer,
        },
        "scores": {"choice": {"value": "C" if row["correct"] else "I", "answer": answer}},
        "metadata": metadata,
    }


def _summary(sample: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "epoch", "input", "choices", "target", "metadata", "scores")
    return {**{name: sample[name] for name in names}, "completed": True}


def _header(run: Run, samples: list[dict[str, Any]], model: str, time: str) -> dict[str, Any]:
    correct = sum(sample["scores"]["choice"]["value"] == "C" for sample in samples)
    metric = {"name": "accuracy", "value": correct / max(1, len(samples))}
    scorer = {"name": "choice", "scorer": "choice", "params": {}, "metrics": {"accuracy": metric}}
    own = {
        "version": __version__,
        "name": run.name,
        "facts": run.facts,
        "exam": {"name": run.exam, "title": run.exam_title, "licence": run.licence},
    }
    return {
        "version": _VERSION,
        "status": "success",
        "eval": {
            "created": time,
            "task": run.exam,
            "task_version": 0,
            "dataset": {
                "name": run.exam,
                "samples": len(samples),
                "sample_ids": [sample["id"] for sample in samples],
                "shuffled": False,
            },
            "model": model,
            "config": {},
            "packages": {"kmmlu_fast": __version__},
        },
        "plan": {"name": "plan", "steps": [{"solver": "kmmlu_fast", "params": {}}], "config": {}},
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [scorer],
        },
        "stats": {"started_at": time, "completed_at": time, "model_usage": {}},
        "metadata": {OWN_METADATA: own},
    }
