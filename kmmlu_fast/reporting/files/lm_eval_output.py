"""The lm-eval export: each run with answers as lm-evaluation-harness would have written it.

In: ``ReportData``. Out: a folder per run. Knows nothing of lm-eval's format (``runs.lm_eval_export``).
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.files import distinct_slugs, write_files_together
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.reporting.files.export_formats import ExportFormat, ExportRequest
from kmmlu_fast.runs.lm_eval_export import lm_eval_files


def lm_eval_documents(questions: pl.DataFrame | None) -> dict[str, dict[str, Any]]:
    """The dataset's rows as lm-eval's ``doc``, by question id; the answer is 1-based, as in the files."""
    if questions is None:
        return {}
    return {
        row["question_id"]: {
            "question": row["question"],
            "answer": OPTION_LETTERS.index(row["answer"]) + 1,
            **{letter: row[letter] for letter in OPTION_LETTERS if row.get(letter) is not None},
            "Category": row["subject"].replace("-", " "),
            "Human Accuracy": row["human_accuracy"],
        }
        for row in questions.iter_rows(named=True)
    }


def _write_lm_eval_output(request: ExportRequest) -> list[Path]:
    """All files of all runs, or none of them."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    runs = request.report.answered
    documents = lm_eval_documents(request.report.questions if request.with_texts else None)
    files: dict[Path, bytes] = {}
    results = []
    for run, name in zip(runs, distinct_slugs(run.name for run in runs), strict=True):
        frame = run.frame
        if not request.with_texts:
            frame = frame.with_columns(pl.lit(None, pl.List(pl.String)).alias("texts"))
        folder = request.folder / "lm-eval" / name
        own = lm_eval_files(folder, run, frame, documents, stamp)
        results.append(next(iter(own)))
        files |= own
    if files:
        for folder in {path.parent for path in files}:
            folder.mkdir(parents=True, exist_ok=True)
        write_files_together(files, request.folder / "lm-eval" / ".files.journal")
    return results


EXPORTS = (
    ExportFormat(
        name="lm-eval",
        write=_write_lm_eval_output,
        # its names contain the time; this one stands for the folder, which must be writable
        paths=lambda folder: [folder / "lm-eval" / "results.json"],
    ),
)
