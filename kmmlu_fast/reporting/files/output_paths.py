"""Where a report and its exports are written, known before anything is computed, so that nothing in the way
is found too late.

In: what was asked for. Out: paths. Knows nothing of what is written there.
"""

from __future__ import annotations

from pathlib import Path

from kmmlu_fast.reporting.config import ReportConfig

TABLES = (
    "subjects",
    "predictions",
    "questions",
    "errors",
    "error_profile",
    "confident_errors",
    "changes",
)
_FIGURES = ("changes", "groups", "weak", "letters", "calibration", "cost-tokens", "cost-seconds", "plan")


def report_output_paths(config: ReportConfig, path: Path) -> list[Path]:
    """Every file that may be written, but lm-eval's, whose names hold the time."""
    folder = path.parent
    found = [path]
    found += [
        folder / f"{name}.{kind}"
        for kind in ("csv", "csv.gz", "parquet")
        if kind in config.export
        for name in TABLES
    ]
    found += [folder / f"report.{kind}" for kind in ("json", "xlsx") if kind in config.export]
    if "lm-eval" in config.export:
        found.append(
            folder / "lm-eval" / "results.json"
        )  # stands for the folder: it must be there to be written to
    if config.figures is not None:
        charts = [*_FIGURES, *(old.stem for old in config.figures.glob("training-*.svg"))]
        found += [config.figures / f"{name}.{kind}" for name in charts for kind in ("svg", "png", "pdf")]
    return found
