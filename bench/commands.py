"""Commands that read and report, from the shell to their last line: help, comparison, report, leakage guard.

In: a predictions table of full runs (invented where none is there). Out: seconds, CPU seconds and the most
memory of each command, every one a process of its own. Knows nothing of what is computed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, PositiveInt

from bench.analysis import AnalysisConfig, predictions_file
from bench.common import ROOT, BenchConfig, finish, note, spread, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import EngineError

_COLUMNS = ("_config", "_row", "answer")  # of a predictions table, beside a column a run


class CommandsConfig(BenchConfig):
    """python -m bench.commands: whole commands that need no model."""

    predictions: Path | None = Field(None, description="predictions table; default: the reference's")
    runs: PositiveInt = Field(25, description="runs at most, where they are invented")


def timed_command(words: list[str]) -> tuple[float, float, float]:
    """(seconds, CPU seconds, GiB at most) of ``python -m ...``. EngineError where it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=said,
            stderr=said,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KMMLU_GUARD": "0"},  # its memory is the verb's own
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        sec = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise EngineError(f"{words[0]}: exit code {process.returncode}: {said.read()[-300:].decode()}")
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return sec, used.ru_utime + used.ru_stime, used.ru_maxrss / unit


def commands(config: CommandsConfig, folder: Path) -> dict[str, list[str]]:
    """What is measured, by name."""
    chosen = AnalysisConfig.model_validate({"dataset": config.dataset, "runs": config.runs})
    path = config.predictions or predictions_file(chosen, folder)
    frame = pl.read_csv(path, infer_schema=False)
    runs = [name for name in frame.columns if name not in _COLUMNS]
    two = []
    for number, name in enumerate(runs[:2]):
        two.append(folder / f"run-{number}.csv")
        frame.select(*(column for column in _COLUMNS if column in frame.columns), name).write_csv(two[-1])
    data = config.dataset_name()
    pages = ["--dataset", data, "--output", str(folder / "report.html"), "--overwrite"]
    return {
        "help": ["kmmlu_fast", "--help"],
        "compare two full runs": ["kmmlu_fast.compare", *map(str, two)],
        f"report of {len(runs)} runs with texts": ["kmmlu_fast.report", str(path), *pages],
        "leakage of train against test": [
            *("kmmlu_fast.leakage", "--dataset", data, "--output", str(folder / "overlap.json")),
            "--overwrite",
        ],
    }


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(CommandsConfig, argv, "python -m bench.commands")
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, words in commands(config, folder).items():
                note(f"commands: {name}")
                found = [timed_command(words) for _ in range(config.repeats + 1)][1:]
                rows.append(
                    {
                        "what": name,
                        "sec": spread([sec for sec, _, _ in found], 2),
                        "cpu_sec": spread([cpu for _, cpu, _ in found], 2),
                        "peak_gib": round(max(peak for _, _, peak in found), 3),
                    }
                )
        shown = [{**row, "sec": row["sec"]["median"], "cpu_sec": row["cpu_sec"]["median"]} for row in rows]
        finish("commands", config, argv, {"rows": rows}, [table("Whole commands (median)", shown)])
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
