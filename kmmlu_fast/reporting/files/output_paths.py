"""The paths of a report and its exports, known before anything is computed, so that existing files are
noticed early.

In: flags. Out: paths. Knows nothing of what is written there.
"""

from __future__ import annotations

from pathlib import Path

from kmmlu_fast.reporting.config import ReportConfig
from kmmlu_fast.reporting.files.export_formats import find_export_format

_FIGURES = ("changes", "groups", "weak", "letters", "calibration", "cost-tokens", "cost-seconds", "plan")
_FIGURES_OF_RUNS = ("training-*.svg", "changes-*.svg")  # their names hold those of runs


def report_output_paths(config: ReportConfig, path: Path) -> list[Path]:
    """Every file that may be written, except those whose names contain the time."""
    folder = path.parent
    paths = [path]
    for name in config.export:
        paths += find_export_format(name).paths(folder)
    if config.figures is not None:
        charts = [*_FIGURES, "heatmap"]
        charts += [old.stem for pattern in _FIGURES_OF_RUNS for old in config.figures.glob(pattern)]
        paths += [config.figures / f"{name}.{kind}" for name in charts for kind in ("svg", "png", "pdf")]
    return paths
