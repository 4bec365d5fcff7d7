"""What a user waits for at the shell: one question a subject from the command to its summary, and the
finished run shown again.

In: a model, and perhaps another checkout of this project (``--before``). Out: seconds and CPU seconds of
whole commands, each a process of its own, in turn between the checkouts so that both see the same machine.
The first command after a change also compiles what torch caches on disk: it is the warm-up. Knows nothing of
what is answered.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from bench.common import ROOT, BenchConfig, finish, note, spread, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import EngineError

WHAT = ("first answers", "shown again")


class StartConfig(BenchConfig):
    """python -m bench.start: whole commands, from the shell to the summary."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    limit: PositiveInt = Field(1, description="questions a subject")
    subjects: str = Field(
        "Law", description="subjects, comma-separated; few: the start is measured, not the answers"
    )
    before: Path | None = Field(
        None, description="another checkout of this project, measured in turn with this one"
    )


def timed_command(tree: Path, arguments: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds of ``python -m kmmlu_fast.eval`` in a checkout. EngineError if it fails."""
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, "-m", "kmmlu_fast.eval", *arguments]
    done = subprocess.run(
        words,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    sec, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise EngineError(
            f"kmmlu_fast.eval in {tree.name}: exit code {done.returncode}:"
            f" {done.stderr.strip().splitlines()[-1]}"
        )
    return sec, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def measure(config: StartConfig, trees: dict[str, Path]) -> list[dict[str, Any]]:
    """Rows by checkout and command."""
    dataset = config.dataset_name()
    dataset = dataset if dataset == "sample" else str(Path(dataset).resolve())
    arguments = [
        "--model",
        config.model,
        "--dataset",
        dataset,
        "--subjects",
        config.subjects,
        "--limit",
        str(config.limit),
    ]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {
        (name, what): [] for name in trees for what in WHAT
    }
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(config.repeats + 1):
            for name, tree in trees.items():
                note(f"start: {name}, {'warm-up' if turn == 0 else f'turn {turn}'}")
                own = [*arguments, "--output-dir", str(Path(folder) / f"{name}-{turn}")]
                for what in WHAT:
                    found = timed_command(tree, own)
                    if turn:
                        times[name, what].append(found)
    return [
        {
            "tree": name,
            "what": what,
            "sec": spread([sec for sec, _ in found], 2),
            "cpu_sec": spread([sec for _, sec in found], 2),
        }
        for (name, what), found in times.items()
    ]


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(StartConfig, argv, "python -m bench.start")
        trees = {"now": ROOT, **({"before": config.before.resolve()} if config.before else {})}
        rows = measure(config, trees)
        first = {row["what"]: row for row in rows if row["tree"] == "before"}
        for row in rows:
            other = first.get(row["what"])
            for unit in ("sec", "cpu_sec"):
                ratio = round(row[unit]["median"] / other[unit]["median"], 3) if other else None
                row[f"{unit}_of_before"] = ratio
        shown = [{**row, "sec": row["sec"]["median"], "cpu_sec": row["cpu_sec"]["median"]} for row in rows]
        finish(
            "start",
            config,
            argv,
            {"model": Path(config.model).name, "rows": rows},
            [table("Whole commands (median)", shown)],
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
