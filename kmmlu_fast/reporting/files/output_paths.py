"""The paths of a report and its exports, known before anything is computed, so that existing files are
noticed early.

In: flags. Out: paths. Knows nothing of what is written there.
"""

from __future__ import annotations

from pathlib import Path

from kmmlu_fast.reporting.config import ReportConfig

TABLES = ("subjects", "predictions", "questions", "errors", "error_profile", "confident_errors", "changes")
_FIGURES = ("changes", "groups", "weak", "letters", "calibration", "cost-tokens", "cost-seconds", "plan")


def report_output_paths(config: ReportConfig, path: Path) -> list[Path]:
    """Every file that may be written, except lm-eval's, whose names contain the time."""
    folder = path.parent
    paths = [path]
    for kind in ("csv", "csv.gz", "parquet"):
        if kind in config.export:
            paths += [folder / f"{name}.{kind}" for name in TABLES]
    paths += [folder / f"report.{kind}" for kind in ("json", "xlsx") if kind in config.export]
    if "lm-eval" in config.export:
        # stands for the folder, which must be writable
        paths.append(folder / "lm-eval" / "results.json")
    if config.figures is not None:
        charts = [*_FIGURES, *(old.stem for old in config.figures.glob("training-*.svg"))]
        paths += [config.figures / f"{name}.{kind}" for name in charts for kind in ("svg", "png", "pdf")]
    return paths
