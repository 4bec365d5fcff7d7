"""The registry of export formats: name -> module of ``reporting/files``. To add one: a module with EXPORTS
(``export_formats.ExportFormat``), and a line here.

Knows names only, so that the flags can be checked without importing anything.
"""

from __future__ import annotations

EXPORT_MODULES = {
    "csv": "csv_tables",
    "csv.gz": "csv_tables",
    "parquet": "parquet_tables",
    "json": "json_report",
    "xlsx": "spreadsheet",
    "lm-eval": "lm_eval_output",
    "inspect": "inspect_output",
}
