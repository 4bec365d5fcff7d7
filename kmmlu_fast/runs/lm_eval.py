"""Reads lm-evaluation-harness's files: ``results_*.json`` and ``samples_<task>_*.jsonl``.

In: a directory or results file of lm-eval (``--output_path``, with ``--log_samples`` for questions); tasks
``kmmlu_<subject>`` (letter log-likelihoods) and ``kmmlu_direct_<subject>`` (generated text). Out: predictions
and scores by subject; log-probabilities are natural, A-D. Knows nothing of models.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.letters import MAX_LOGPROB, argmax_index, exact_match, logprob_margin
from kmmlu_fast.core.reading import parse_json, read_text
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS, PREDICTION_SCHEMA
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.subjects import SUBJECTS, Subject
from kmmlu_fast.runs.run import fill_prediction_columns

_TASKS = {name.lower().replace("-", "_"): subject for name, subject in SUBJECTS.items()}
_PREFIXES = ("kmmlu_direct_", "kmmlu_")
_METRICS = ("acc,none", "exact_match,none", "acc", "exact_match")


def lm_eval_task_name(subject: str, direct: bool = False) -> str:
    return ("kmmlu_direct_" if direct else "kmmlu_") + subject.lower().replace("-", "_")


def _task_subject(task: str) -> Subject | None:
    """The subject of an lm-eval task; None for groups and other benchmarks (such as kmmlu_hard)."""
    for prefix in _PREFIXES:
        if task.startswith(prefix) and task.removeprefix(prefix) in _TASKS:
            return _TASKS[task.removeprefix(prefix)]
    return None


def find_lm_eval_files(path: Path) -> list[Path]:
    """results_*.json and samples_*.jsonl in or below a directory; or a results file and its samples files."""
    if path.is_file():
        stamp = path.stem.removeprefix("results")
        return [path, *sorted(path.parent.glob(f"samples_*{stamp}.jsonl"))]
    return sorted([*path.rglob("results_*.json"), *path.rglob("samples_*.jsonl")])


def read_lm_eval(
    path: Path, split: str
) -> tuple[str, pl.DataFrame | None, list[tuple[str, str, int, int]], dict[str, Any]]:
    """Name, predictions (None without samples), score rows (subject, supercategory, correct, total), facts.

    If a directory holds several results of a task, the latest counts: the names sort by time.
    """
    files = find_lm_eval_files(path)
    for file in files:
        if file.is_symlink() and not file.exists():
            raise DataError(f"{path}: holds a broken link ({file}); remove it or restore its target")
    documents = [_read_results_file(file) for file in files if file.suffix == ".json"]
    name = str(documents[-1].get("model_name") or path.stem) if documents else path.stem
    facts = _protocol_facts(documents)
    samples = {
        file.stem.removeprefix("samples_").rsplit("_", 1)[0]: file
        for file in files
        if file.suffix == ".jsonl"
    }
    subjects = {task: subject for task in sorted(samples) if (subject := _task_subject(task)) is not None}
    if subjects:
        is_direct = any(task.startswith("kmmlu_direct_") for task in samples)
        facts["output_type"] = "generate_until" if is_direct else "multiple_choice"
        rows = [
            row for task, subject in subjects.items() for row in _read_samples(samples[task], subject, split)
        ]
        return name, _sample_predictions(rows, path), [], facts
    scores = [score for document in documents for score in _task_scores(document, path)]
    if not scores:
        raise DataError(
            f"{path}: has no kmmlu_<subject> task; give an lm-eval output of the kmmlu or kmmlu_direct group"
        )
    return name, None, list({row[0]: row for row in scores}.values()), facts


def _read_results_file(file: Path) -> dict[str, Any]:
    document = read_json(file, DataError)
    if not isinstance(document.get("results"), dict):
        raise DataError(f"{file}: has no 'results'; give a results_*.json of lm-eval")
    return document


def _protocol_facts(documents: list[dict[str, Any]]) -> dict[str, Any]:
    if not documents:
        return {}
    last = documents[-1]
    facts: dict[str, Any] = {
        "model": last.get("model_name"),
        "prompt_style": "chat" if last.get("chat_template") else "lm-eval",
    }
    counts = last.get("n-shot")
    if isinstance(counts, dict):
        shots = {count for task, count in counts.items() if _task_subject(task) and isinstance(count, int)}
        if len(shots) == 1:
            facts["num_fewshot"] = shots.pop()
    return {name: value for name, value in facts.items() if value is not None}


def _task_scores(document: dict[str, Any], path: Path) -> list[tuple[str, str, int, int]]:
    rows = []
    for task, values in document["results"].items():
        subject = _task_subject(task)
        metrics = [metric for metric in _METRICS if metric in values] if isinstance(values, dict) else []
        if subject is None or not metrics:
            continue
        counts = document.get("n-samples")
        sizes = counts.get(task) if isinstance(counts, dict) else None
        sizes = sizes if isinstance(sizes, dict) else {}
        total = sizes.get("effective") or sizes.get("original") or values.get("sample_len")
        if not total:
            raise DataError(
                f"{path}: {task} has no number of questions ('n-samples'); give lm-eval's samples_*.jsonl as"
                " well"
            )
        if not isinstance(total, int) or isinstance(total, bool) or not 0 < total < 10**9:
            raise DataError(
                f"{path}: {task} has {bounded_repr(total)} questions; it must be a whole number from 1"
            )
        accuracy = values[metrics[0]]
        if not isinstance(accuracy, (int, float)) or isinstance(accuracy, bool) or not 0 <= accuracy <= 1:
            raise DataError(
                f"{path}: {task} has {metrics[0]} {bounded_repr(accuracy)}; it must be a share from 0 to 1"
            )
        rows.append((subject.name, subject.supercategory, round(accuracy * total), total))
    return rows


def _read_samples(file: Path, subject: Subject, split: str) -> list[dict[str, Any]]:
    rows = []
    # Not splitlines(): it also splits at U+2028 and others, which JSON leaves unescaped in strings.
    for number, line in enumerate(read_text(file, DataError).split("\n"), 1):
        if not line.strip():
            continue
        sample = parse_json(line, f"{file} row {number}", DataError)
        try:
            rows.append(_read_sample(sample, subject, split))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{file} row {number}: is not an lm-eval sample of {subject.name} ({bounded_repr(error)})"
            ) from error
    return rows


def _read_sample(sample: dict[str, Any], subject: Subject, split: str) -> dict[str, Any]:
    row = _parse_bounded_integer(sample["doc_id"], 0, 2**31 - 1, "doc_id")
    answer = LETTERS[_parse_bounded_integer(sample["doc"]["answer"], 1, len(LETTERS), "the answer") - 1]
    result: dict[str, Any] = {
        "question_id": f"{subject.name}/{split}/{row}",
        "subject": subject.name,
        "supercategory": subject.supercategory,
        "split": split,
        "row": row,
        "answer": answer,
    }
    responses = sample["filtered_resps"]
    prediction: str | None
    if "acc" in sample:
        logprobs = [float(pair[0]) for pair in responses]
        if len(logprobs) != 4:
            raise ValueError(f"{len(logprobs)} options")
        if not all(math.isfinite(value) and value <= MAX_LOGPROB for value in logprobs):
            raise ValueError(f"log-probabilities {logprobs} are not finite numbers up to 0")
        prediction = LETTERS[argmax_index(logprobs)]
        result |= {
            **dict(zip(LOGPROB_COLUMNS, logprobs, strict=True)),
            "margin": logprob_margin(logprobs),
            "read_by": "loglikelihood",
        }
    else:
        text = responses[0] if isinstance(responses[0], str) else responses[0][0]
        if not isinstance(text, str):
            raise TypeError("the answer is not a text")
        prediction = exact_match(text)
        own_metric = sample.get("exact_match")
        if isinstance(own_metric, (int, float)) and bool(own_metric) != (prediction == answer):
            prediction = answer if own_metric else None  # lm-eval's own metric takes precedence
        result |= {"texts": [text], "read_by": "exact_match" if prediction else None}
    return result | {"prediction": prediction, "correct": prediction == answer}


def _parse_bounded_integer(value: Any, low: int, high: int, what: str) -> int:
    """A whole number within bounds, as a number or as digits (the datasets library writes some like that)."""
    number = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if number is None or not low <= number <= high:
        raise ValueError(f"{what} is {bounded_repr(value)}, not a whole number from {low} to {high}")
    return number


def _sample_predictions(rows: list[dict[str, Any]], path: Path) -> pl.DataFrame:
    if not rows:
        raise DataError(f"{path}: its samples_*.jsonl hold no samples; give lm-eval's whole output")
    names = [name for name in PREDICTION_SCHEMA if any(name in row for row in rows)]
    schema = {name: PREDICTION_SCHEMA[name] for name in names}
    frame = pl.DataFrame({name: [row.get(name) for row in rows] for name in names}, schema=schema)
    repeated = frame.filter(pl.col("question_id").is_duplicated())["question_id"]
    if len(repeated):
        raise DataError(f"{path}: {repeated[0]} appears in two samples; give one lm-eval output")
    if LOGPROB_COLUMNS[0] in names:
        total = pl.sum_horizontal(pl.col(column).exp() for column in LOGPROB_COLUMNS)
        frame = frame.with_columns((pl.max_horizontal(LOGPROB_COLUMNS).exp() / total).alias("confidence"))
    return fill_prediction_columns(frame)
