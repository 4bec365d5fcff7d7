"""Runs and comparisons as files for other tools, in the formats of ``export_names``.

In: ``ReportData``, names of formats. Out: files in a folder. Knows nothing of any format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kmmlu_fast.reporting.export_names import EXPORT_MODULES
from kmmlu_fast.reporting.files.export_formats import ExportRequest, find_export_format
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.runs.run import refuse_early_stopped_runs


def write_exports(
    formats: Sequence[str], report: ReportData, t: Translator, folder: Path, *, with_texts: bool = True
) -> list[Path]:
    """Write ``formats`` into ``folder``; returns the written files. Without ``with_texts``, no text of
    questions or models.
    """
    refuse_early_stopped_runs(report.runs)
    folder.mkdir(parents=True, exist_ok=True)
    request = ExportRequest(report=report, translator=t, folder=folder, with_texts=with_texts)
    wanted = [name for name in EXPORT_MODULES if name in formats]
    return [path for name in wanted for path in find_export_format(name).write(request)]
