"""The inspect export: each run with answers as a log of inspect_ai.

In: ``ReportData``. Out: ``inspect/<run>.eval``. Knows nothing of the log's layout (``runs.inspect_export``).
"""

from __future__ import annotations

import datetime
from pathlib import Path

import polars as pl

from kmmlu_fast.core.files import distinct_slugs, write_files_together
from kmmlu_fast.reporting.files.export_formats import ExportFormat, ExportRequest
from kmmlu_fast.reporting.files.lm_eval_output import lm_eval_documents
from kmmlu_fast.runs.inspect_export import inspect_log_bytes


def _write_inspect_output(request: ExportRequest) -> list[Path]:
    """All logs, or none of them."""
    now = datetime.datetime.now(datetime.UTC)
    documents = lm_eval_documents(request.report.questions if request.with_texts else None)
    folder = request.folder / "inspect"
    runs = request.report.answered
    files: dict[Path, bytes] = {}
    for run, name in zip(runs, distinct_slugs(run.name for run in runs), strict=True):
        frame = run.frame
        if not request.with_texts:
            frame = frame.with_columns(pl.lit(None, pl.List(pl.String)).alias("texts"))
        # the time as inspect's own names have it, so that nothing is replaced
        path = folder / f"{now.strftime('%Y-%m-%dT%H-%M-%S-%f')}_{name}.eval"
        files[path] = inspect_log_bytes(run, frame, documents, now.isoformat(timespec="seconds"))
    if files:
        folder.mkdir(parents=True, exist_ok=True)
        write_files_together(files)
    return list(files)


EXPORTS = (
    ExportFormat(
        name="inspect",
        write=_write_inspect_output,
        # its names contain the time; this one stands for the folder, which must be writable
        paths=lambda folder: [folder / "inspect" / "log.eval"],
    ),
)
