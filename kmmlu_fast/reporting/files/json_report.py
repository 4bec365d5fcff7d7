"""The JSON export: every number of the report in one document.

In: ``ReportData``. Out: report.json. Knows nothing of HTML.
"""

from __future__ import annotations

from pathlib import Path

from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.reporting.files.export_formats import ExportFormat, ExportRequest
from kmmlu_fast.reporting.files.frames import report_data_json
from kmmlu_fast.reporting.wording import error_text


def _write_json_report(request: ExportRequest) -> list[Path]:
    document = report_data_json(request.report, request.translator)
    frames = error_text.error_frames(request.report)
    document["errors"] = {name: frame.to_dicts() for name, frame in frames.items()}
    path = request.folder / "report.json"
    write_json_atomically(path, document)
    return [path]


EXPORTS = (
    ExportFormat(name="json", write=_write_json_report, paths=lambda folder: [folder / "report.json"]),
)
