"""Statistics, leakage guard and report at full size: 25 runs x 35,030 predictions, 155,332 train rows against
test.

In: a predictions table (``FILE.csv`` with ``_config`` and ``_row``), or 25 invented runs over the dataset's
questions. Out: seconds of each step, and the peak memory. Bounds: every step of the statistics in under 5 s,
the leakage guard in under 60 s, a report in under 30 s. Knows nothing of engines.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, PositiveInt

from bench.common import KMMLU, BenchConfig, finish, note, peak_memory_bytes, run_child, spread, table, timed
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.schema import LETTERS

REFERENCE = KMMLU.parent / "reference" / "predictions_25_models_test.csv"
STATISTICS, LEAKAGE, REPORT = "statistics", "leakage", "report"
BOUND_SEC = {STATISTICS: 5.0, LEAKAGE: 60.0, REPORT: 30.0}


class AnalysisConfig(BenchConfig):
    """python -m bench.analysis: seconds of statistics, leakage guard and report at full size."""

    predictions: Path | None = Field(
        None, description=f"predictions table; default: {REFERENCE} if it is there, else invented runs"
    )
    runs: PositiveInt = Field(25, description="runs at most")
    part: str | None = Field(
        None, description=f"internal: measure one of {', '.join(BOUND_SEC)} in this process, print JSON only"
    )


def predictions_file(config: AnalysisConfig, folder: Path) -> Path:
    """The table to analyse; invented, seeded, where none is given or found."""
    from kmmlu_fast.data.dataset import load_frame

    if config.predictions or REFERENCE.exists():
        return config.predictions or REFERENCE
    frame, draw = load_frame(config.dataset_name(), "test"), random.Random(0)
    invented = {f"run-{i:02d}": [draw.choice(LETTERS) for _ in range(len(frame))] for i in range(config.runs)}
    path = folder / "invented.csv"
    pl.DataFrame(
        {"_config": frame["subject"], "_row": frame["row"], "answer": frame["answer"], **invented}
    ).write_csv(path)
    return path


def steps(config: AnalysisConfig, part: str, folder: Path) -> list[tuple[str, str, Callable[[], Any]]]:
    """(step, size, what to time) of one part; what is not timed is prepared here."""
    from kmmlu_fast.analysis import accuracy as analysis
    from kmmlu_fast.analysis import comparison
    from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
    from kmmlu_fast.contamination import overlap
    from kmmlu_fast.data import dataset
    from kmmlu_fast.reporting.html.page import write_report_page
    from kmmlu_fast.reporting.report_data import collect_report_data
    from kmmlu_fast.runs import loading as importers

    name = config.dataset_name()
    if part == LEAKAGE:
        train, target = dataset.load_frame(name, "train"), overlap.load_guarded_split(name)
        return [
            (
                "train against test and dev",
                f"{len(train):,} x {len(target):,} rows",
                lambda: overlap.find_overlapping_rows(train, target),
            )
        ]
    path = predictions_file(config, folder)
    runs = importers.load_run_argument(str(path))[: config.runs]
    size = f"{len(runs)} x {len(runs[0].frame):,}"
    settings = ComparisonSettings()
    if part == REPORT:
        questions = dataset.load_frame(name, "test")

        def page(count: int) -> Callable[[], int]:
            return lambda: write_report_page(
                collect_report_data(runs[:count], settings, questions), folder / "report.html", "en"
            )

        return [
            (f"HTML of {n} run{'s' if n > 1 else ''}", f"{n} x {len(runs[0].frame):,}", page(n))
            for n in sorted({1, 2, len(runs)})
        ]
    together = pl.concat([run.frame.with_columns(pl.lit(run.name).alias("model")) for run in runs])
    return [
        ("read the table", size, lambda: importers.load_run_argument(str(path))),
        ("summarise every run", size, lambda: [analysis.summarise_predictions(run.frame) for run in runs]),
        (
            "accuracy by run and subject",
            size,
            lambda: analysis.accuracy_by_group(together, ["model", "subject"]),
        ),
        ("letters by run", size, lambda: analysis.letter_confusion_counts(together, ["model"])),
        (
            "compare two runs",
            f"2 x {len(runs[0].frame):,}",
            lambda: comparison.compare_pair(runs[0], runs[1], settings),
        ),
    ]


def measure(config: AnalysisConfig, part: str) -> dict[str, Any]:
    """One part in this process."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for step, size, run in steps(config, part, Path(folder)):
            note(f"{part}: {step}")
            seconds, _ = timed(
                run, 1 if part == LEAKAGE else config.repeats, warm_up=0 if part == LEAKAGE else 1
            )
            rows.append({"part": part, "step": step, "size": size, "sec": spread(seconds)})
    return {"rows": rows, "peak_gib": round(peak_memory_bytes() / 2**30, 3)}


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(AnalysisConfig, argv, "python -m bench.analysis")
        if config.part:
            print(json.dumps(measure(config, config.part)))
            return 0
        flags = ["--dataset", config.dataset, "--repeats", str(config.repeats), "--runs", str(config.runs)]
        flags += ["--predictions", str(config.predictions)] if config.predictions else []
        parts = {part: run_child(["bench.analysis", "--part", part, *flags]) for part in BOUND_SEC}
        rows = [row for part in parts.values() for row in part["rows"]]
        within = {
            part: all(row["sec"]["median"] < BOUND_SEC[part] for row in found["rows"])
            for part, found in parts.items()
        }
        shown = [
            {**row, "sec": row["sec"]["median"], "peak_gib": parts[row["part"]]["peak_gib"]} for row in rows
        ]
        peaks = {part: found["peak_gib"] for part, found in parts.items()}
        result = {"rows": rows, "peak_gib": peaks, "bound_sec": BOUND_SEC, "within": within}
        finish("analysis", config, argv, result, [table("Analysis (median)", shown)])
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
