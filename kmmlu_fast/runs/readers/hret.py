"""Reads results of HRET (HAERAE Evaluation Toolkit): a JSON object with metrics, samples and info.

In: the file. Out: a run of scores by subject: its samples have no question numbers, so they cannot be
compared one by one. Knows nothing of how answers were read.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.runs.readers.score_files import score_run
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run


def _detect_hret(source: RunSource) -> bool:
    samples = source.fields.get("samples")
    first = samples[0] if isinstance(samples, list) and samples else None
    return isinstance(first, dict) and "reference" in first and "prediction" in first


def _read_hret(source: RunSource) -> list[Run]:
    counts: dict[str, list[int]] = {}
    for number, sample in enumerate(source.fields["samples"]):
        evaluation = sample.get("evaluation") if isinstance(sample, dict) else None
        right = evaluation.get("is_correct") if isinstance(evaluation, dict) else None
        subject = sample.get("_subset_name") if isinstance(sample, dict) else None
        if not isinstance(right, bool) or not subject:
            raise DataError(
                f"{source.path} sample {number}: is HRET's, but has no _subset_name or no"
                " evaluation.is_correct; write a table with the columns _config, _row, answer and one per"
                " model"
            )
        correct_and_total = counts.setdefault(str(subject), [0, 0])
        correct_and_total[0] += right
        correct_and_total[1] += 1
    info: dict[str, Any] = source.fields.get("info") or {}
    rows = [
        {"subject": name, "correct": correct, "total": total} for name, (correct, total) in counts.items()
    ]
    note = (
        f"{source.path}: HRET numbers no questions, so its scores by subject are read; to compare question by"
        " question write a table with the columns _config, _row, answer and one per model"
    )
    model = info.get("model_name") or info.get("model")
    return [score_run(rows, source, model=str(model) if model else None, notes=(note,))]


READER = RunReader(program="HRET", detect=_detect_hret, read=_read_hret)
