"""What an export format is, and how it is found.

In: a name of ``export_names``. Out: its ``ExportFormat``; its module is imported then. Knows nothing of any
format.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmmlu_fast.reporting.export_names import EXPORT_MODULES
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator

# The tables that ``frames.report_frames`` may make, by name.
TABLES = ("subjects", "predictions", "questions", "errors", "error_profile", "confident_errors", "changes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What is to be written where. Without ``with_texts``, no text of questions or models."""

    report: ReportData
    translator: Translator
    folder: Path
    with_texts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """``write`` returns the files; ``paths`` names those in a folder that it may replace."""

    name: str
    write: Callable[[ExportRequest], list[Path]]
    paths: Callable[[Path], list[Path]]


def find_export_format(name: str) -> ExportFormat:
    """The format of that name."""
    module = importlib.import_module(f"kmmlu_fast.reporting.files.{EXPORT_MODULES[name]}")
    formats: tuple[ExportFormat, ...] = module.EXPORTS
    return next(export for export in formats if export.name == name)
