"""What a user waits for at the shell: one question a subject from the command to its summary, and the
finished run shown again; with a warm engine (``--warm``), and with a new adapter of a finished base
(``--adapter``), too.

In: a model, and perhaps another checkout of this project (``--before``). Out: seconds and CPU seconds of
whole commands, each a process of its own, in turn between the checkouts so that both see the same machine.
The first command after a change also compiles what torch caches on disk: it is the warm-up. With ``--warm``
it is the first command that asks the warm engine; the second and later ones count, without the CPU seconds
of the engine's own process. Knows nothing of what is answered.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from bench.common import ROOT, BenchConfig, finish, note, spread, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import EngineError

FIRST, AGAIN, ADAPTER = "first answers", "shown again", "a new adapter of a finished base"
WARM = ", warm engine"
_READY_SEC = 900.0


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
    warm: bool = Field(False, description="also with the engine that serve-engine keeps warm")
    adapter: str | None = Field(None, description="also with this adapter, once the base is finished")


def eval_words(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "kmmlu_fast.eval", *arguments]


def tree_environment(tree: Path, runtime: Path) -> dict[str, str]:
    """``runtime``: where warm engines are looked for, so that the user's own is not measured."""
    return {**os.environ, "PYTHONPATH": str(tree), "XDG_RUNTIME_DIR": str(runtime)}


def timed_command(tree: Path, arguments: Sequence[str], runtime: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of ``python -m kmmlu_fast.eval`` in a checkout. EngineError if it fails."""
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        eval_words(arguments),
        cwd=tree,
        env=tree_environment(tree, runtime),
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
    if runtime.name == "warm" and "asks the engine that serve-engine keeps warm" not in done.stderr:
        raise EngineError("the warm engine was not asked: " + " ".join(done.stderr.split())[:300])
    return sec, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


@contextlib.contextmanager
def warm_engine(model: str, runtime: Path) -> Iterator[None]:
    """``serve-engine`` of this checkout, once its engine has started. EngineError if it does not start."""
    words = [sys.executable, "-m", "kmmlu_fast.serve_engine", "--model", model, "--idle-minutes", "30"]
    with (runtime / "log").open("w+") as log:
        process = subprocess.Popen(
            words, cwd=ROOT, env=tree_environment(ROOT, runtime), stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + _READY_SEC
            while "engine: warm" not in (runtime / "log").read_text():
                if process.poll() is not None or time.monotonic() > end:
                    raise EngineError("serve-engine did not start: " + (runtime / "log").read_text()[-300:])
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()


def commands_of(config: StartConfig) -> dict[str, list[str]]:
    """What is measured in one turn, in this order: the later ones find what the first one finished."""
    dataset = config.dataset_name()
    dataset = dataset if dataset == "sample" else str(Path(dataset).resolve())
    shared = ["--model", config.model, "--dataset", dataset, "--subjects", config.subjects]
    shared += ["--limit", str(config.limit)]
    commands = {FIRST: shared, AGAIN: shared}
    if config.adapter:
        adapter = config.adapter
        if Path(adapter).exists():
            adapter = str(Path(adapter).resolve())
        commands[ADAPTER] = [*shared, "--adapter", adapter]
    return commands


def measure(config: StartConfig, trees: dict[str, Path]) -> list[dict[str, Any]]:
    """Rows by checkout and command."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("cold", "warm"):
            (folder / name).mkdir(mode=0o700)
        for turn in range(config.repeats + 1):
            for name, tree in trees.items():
                measure_turn(config, turn, name, tree, folder / "cold", times)
        if config.warm:
            with warm_engine(config.model, folder / "warm"):
                for turn in range(config.repeats + 1):
                    measure_turn(config, turn, "now", ROOT, folder / "warm", times)
    return [
        {
            "tree": name,
            "what": what,
            "sec": spread([sec for sec, _ in found], 2),
            "cpu_sec": spread([sec for _, sec in found], 2),
        }
        for (name, what), found in times.items()
    ]


def measure_turn(
    config: StartConfig,
    turn: int,
    name: str,
    tree: Path,
    runtime: Path,
    times: dict[tuple[str, str], list[tuple[float, float]]],
) -> None:
    """Every command once, into ``times``, but for the warm-up's."""
    is_warm = runtime.name == "warm"
    note(f"start: {name}{WARM if is_warm else ''}, {'warm-up' if turn == 0 else f'turn {turn}'}")
    runs = str(runtime / f"runs-{name}-{turn}")
    for what, arguments in commands_of(config).items():
        if is_warm and what == AGAIN:  # asks no engine
            continue
        found = timed_command(tree, [*arguments, "--output-dir", runs], runtime)
        if turn:
            times.setdefault((name, what + WARM * is_warm), []).append(found)


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
