"""One of each benchmark and one table: what was measured, what is wanted, and how it stands to the last
record of this kind of machine, or to another checkout measured in turn with this one.

In: ``--quick`` for a round of under ten minutes on two cores (few questions, one repetition), or the
benchmarks' own sizes; ``--before`` for the other checkout. Out: a row a figure. Each benchmark is a process
of its own; one that fails is a row that says so, and the others go on. Ratios carry over between machines,
seconds only within a kind (``last_record``). A quick round is one record; of a whole round each benchmark
records itself. Knows nothing of how anything is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.common import RESULTS, BenchConfig, device_info, finish, last_record, note, run_child, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError, KmmluError

Entry = dict[str, Any]
_NEXT = "lm-eval-vllm-next"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a benchmark's result, and what it should be at most or at least."""

    what: str
    read: Callable[[Entry], float | None]
    target: float | None = None
    at_least: bool = False

    def met(self, value: float | None) -> bool | None:
        """None where there is no target, or no value."""
        if value is None or self.target is None:
            return None
        return value >= self.target if self.at_least else value <= self.target


def _row(entry: Entry, **wanted: Any) -> Entry:
    return next(
        (row for row in entry["rows"] if all(row.get(key) == value for key, value in wanted.items())), {}
    )


def _median(row: Entry, name: str) -> float | None:
    return row[name]["median"] if row else None


def _largest(entry: Entry, name: str) -> float | None:
    return max(
        (row[name] for row in entry["rows"] if row.get("mode") == "swap" and row["state"] != "base"),
        default=None,
    )


def _training_ratio(entry: Entry) -> float | None:
    own, stack = (_row(entry, way=way, length=128, batch=4) for way in ("train", "unsloth"))
    return round(stack["cpu_sec"]["median"] / own["cpu_sec"]["median"], 2) if own and stack else None


def _training_memory(entry: Entry) -> float | None:
    own, stack = (_row(entry, way=way, length=128, batch=4) for way in ("train", "unsloth"))
    return round(stack["peak_gib"] - own["peak_gib"], 2) if own and stack else None


def _times(entry: Entry, name: str) -> float | None:
    row = _row(entry, **{"pass": name})
    return float(row["times_cpu_sec"]) if row else None


def _peer(entry: Entry, peer: str, shots: int) -> float | None:
    """How many times as much CPU time a peer takes; of records without CPU time, by the clock."""
    rounds = [found for found in entry["rounds"] if found["num_fewshot"] == shots]
    row: Entry = next((row for found in rounds for row in found["rows"] if row["peer"] == peer), {})
    value = row.get("times_cpu", row.get("times_slower"))
    return None if value is None else float(value)


def _decisions(entry: Entry, exam: str | None = None) -> float | None:
    """Decisions per minute, times lm-eval's today; of the small exam, or of the named one."""
    wanted = exam or entry["rows"][0]["exam"]
    value = _row(entry, exam=wanted, way="kmmlu_fast, until decided").get("times_lm_eval")
    return None if value is None else float(value)


def _growth(entry: Entry, what: str) -> float | None:
    value = _row(entry, what=what).get("growth")
    return None if value is None else float(value)


def _command(entry: Entry, begins: str, unit: str) -> float | None:
    row = next((row for row in entry["rows"] if row["what"].startswith(begins)), None)
    if row is None:
        return None
    return float(row[unit] if unit == "peak_gib" else row[unit]["median"])


# benchmark -> (arguments of the quick round, figures)
ROUND: dict[str, tuple[list[str], tuple[Figure, ...]]] = {
    "start": (
        ["--repeats", "1", "--warm"],
        (
            Figure(
                "the second command of a warm engine, s",
                lambda e: _median(_row(e, tree="now", what="first answers, warm engine"), "sec"),
                3.0,
            ),
            Figure(
                "command to first answers, s",
                lambda e: _median(_row(e, tree="now", what="first answers"), "sec"),
                9.0,
            ),
            Figure(
                "finished run shown again, s",
                lambda e: _median(_row(e, tree="now", what="shown again"), "sec"),
                2.0,
            ),
        ),
    ),
    "throughput": (
        ["--limit", "1", "--repeats", "1"],
        (Figure("share of the matmul rate", lambda e: e["share_of_matmul_rate"], 0.82, at_least=True),),
    ),
    "adapters": (
        ["--modes", "swap", "--limit", "1", "--adapters", "2", "--repeats", "1"],
        (
            Figure("a swap, s", lambda e: _largest(e, "swap_sec"), 2.0),
            Figure("pass with an adapter / base, CPU", lambda e: _largest(e, "times_base_cpu"), 1.02),
        ),
    ),
    "many_adapters": (
        ["--adapters", "24", "--questions", "90"],
        (
            Figure("summary and verdicts, growth", lambda e: _growth(e, "summary and verdicts"), 1.15),
            Figure("until decided, growth", lambda e: _growth(e, "until decided"), 1.15),
            Figure(
                "the last adapter / the first, CPU",
                lambda e: round(
                    e["adapter_cpu_sec"]["last quarter"] / e["adapter_cpu_sec"]["first quarter"], 2
                ),
                1.15,
            ),
            Figure("an adapter more, MiB", lambda e: e["mib_per_adapter"], 2.0),
        ),
    ),
    "peers": (
        [
            *("--peers", "kmmlu_fast,lm-eval-vllm-next", "--limit", "1", "--chunks", "1"),
            *("--fewshot-subjects", "2", "--fewshot-limit", "6"),
        ],
        (
            Figure("lm-eval next / ours, CPU", lambda e: _peer(e, _NEXT, 0), 1.5, at_least=True),
            Figure("lm-eval next / ours, five-shot, CPU", lambda e: _peer(e, _NEXT, 5), 3.0, at_least=True),
        ),
    ),
    "judge": (
        ["--adapters", "3", "--limit", "1", "--dataset", "sample", "--peer-questions", "10"],
        (
            Figure("decisions per minute / lm-eval's", _decisions, 25.0, at_least=True),
            Figure("the same on KMMLU, computed", lambda e: _decisions(e, "KMMLU"), 25.0, at_least=True),
        ),
    ),
    "training": (
        [
            *("--ways", "train,unsloth", "--lengths", "128", "--batches", "4"),
            *("--warm-ups", "1", "--repeats", "1"),
        ],
        (
            Figure("4 x 128: steps/s / the stack's own, CPU", _training_ratio, 1.35, at_least=True),
            Figure("4 x 128: GiB less than the stack's own", _training_memory, 1.2, at_least=True),
        ),
    ),
    "overhead": (
        ["--factors", "1", "--repeats", "1"],
        (
            Figure(
                "35,030 questions without a model, CPU s",
                lambda e: _median(e["rows"][0], "own_cpu_sec"),
                20.0,
            ),
        ),
    ),
    "analysis": (
        ["--repeats", "1"],
        (Figure("peak of analysis, GiB", lambda e: max(e["peak_gib"].values()), 1.0),),
    ),
    "shared": (
        ["--limit", "1", "--repeats", "1"],
        (
            Figure("four orders / one, CPU", lambda e: _times(e, "letters, 4 orders"), 2.5),
            Figure("eight samples / one in prefill, CPU", lambda e: _times(e, "chain, 8 samples"), 1.6),
        ),
    ),
    "commands": (
        ["--repeats", "1"],
        (
            Figure("--help, CPU s", lambda e: _command(e, "help", "cpu_sec"), 0.2),
            Figure("two full runs compared, s", lambda e: _command(e, "compare", "sec"), 2.0),
            Figure("25 runs reported with texts, s", lambda e: _command(e, "report", "sec"), 5.0),
            Figure("25 runs reported with texts, GiB", lambda e: _command(e, "report", "peak_gib"), 1.0),
            Figure("leakage of the train split, s", lambda e: _command(e, "leakage", "sec"), 6.0),
        ),
    ),
    "guard": (
        ["--rows", "50000", "--repeats", "1"],
        (
            Figure("guard over a training file / bound", lambda e: e["sec"]["median"] / e["bound_sec"], 1),
            Figure("guard, peak GB", lambda e: e["peak_gb"], 4.0),
        ),
    ),
}


class AllConfig(BenchConfig):
    """python -m bench.all: one of each benchmark, one table."""

    quick: bool = Field(False, description="few questions, one repetition: under ten minutes on two cores")
    benchmarks: list[str] = Field(list(ROUND), description=f"which: {', '.join(ROUND)}")
    before: Path | None = Field(
        None, description="another checkout of this project, each benchmark in turn with this one's"
    )


def rows_of(name: str, entry: Entry, figures: tuple[Figure, ...], last: Entry | None) -> list[Entry]:
    """A row a figure, beside the last record of this kind of machine."""
    rows = []
    for figure in figures:
        value, before = figure.read(entry), figure.read(last) if last else None
        rows.append(
            {
                "benchmark": name,
                "what": figure.what,
                "measured": value,
                "target": (
                    None
                    if figure.target is None
                    else f"{'>=' if figure.at_least else '<='} {figure.target:g}"
                ),
                "met": {True: "yes", False: "no", None: "-"}[figure.met(value)],
                "of_last_record": round(value / before, 3) if value is not None and before else None,
            }
        )
    return rows


def figures_before(tree: Path, name: str, config: AllConfig) -> dict[str, float]:
    """The other checkout's figures of a benchmark, by what they say; none if it has no such benchmark."""
    if not (tree / "bench" / f"{name}.py").is_file():
        return {}
    words = ["bench.all", "--benchmarks", name, *(["--quick"] if config.quick else [])]
    if config.dataset != "auto":
        words += ["--dataset", config.dataset]
    entry = run_child(words, {"PYTHONPATH": str(tree.resolve())}, folder=tree)
    return {row["what"]: row["measured"] for row in entry["rows"] if row["measured"] is not None}


def measure(name: str, config: AllConfig, last: Entry | None) -> list[Entry]:
    """The rows of one benchmark; one that fails is a row that says so."""
    arguments, figures = ROUND[name]
    own = [*(arguments if config.quick else [])]
    if config.dataset != "auto" and "--dataset" not in arguments:
        own += ["--dataset", config.dataset]
    if config.record and not config.quick:
        own += ["--record"]
        if config.results_dir != RESULTS:
            own += ["--results-dir", str(config.results_dir)]
    try:
        return rows_of(name, run_child([f"bench.{name}", *own]), figures, last)
    except (KmmluError, KeyError, IndexError) as error:
        what = f"failed: {error}"
        return [{"benchmark": name, "what": what, "measured": None, "target": None, "met": "no"}]


def add_figures_before(rows: list[Entry], before: dict[str, float]) -> list[Entry]:
    """``rows`` with ``before`` and how many times that ``measured`` is; None for what is new."""
    for row in rows:
        then, now = before.get(row["what"]), row["measured"]
        row["before"] = then
        row["times_before"] = round(now / then, 3) if then and now is not None else None
    return rows


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(AllConfig, argv, "python -m bench.all")
        if unknown := [name for name in config.benchmarks if name not in ROUND]:
            raise ConfigError(f"--benchmarks {', '.join(unknown)}: allowed are {', '.join(ROUND)}")
        if config.before and not (config.before / "bench" / "all.py").is_file():
            raise ConfigError(
                f"--before {config.before}: no checkout of this project with bench/all.py; make one with"
                " git worktree add PATH COMMIT"
            )
        device, rows, total = device_info(), [], 0.0
        for name in config.benchmarks:
            before: dict[str, float] = {}
            if config.before:
                note(f"== {name}, before")
                try:
                    before = figures_before(config.before, name, config)
                except KmmluError as error:
                    note(f"before: {error}")
            note(f"== {name}")
            began = time.perf_counter()
            found = measure(name, config, last_record(name, device, config.results_dir))
            spent = time.perf_counter() - began
            total += spent
            if config.before:
                found = add_figures_before(found, before)
            rows += [{**row, "bench_sec": round(spent)} for row in found]
        note(f"the round took {total:.0f} s{' of this checkout' if config.before else ''}")
        silent = config if config.quick else config.model_copy(update={"record": False})
        result = {"rows": rows, "total_sec": round(total), "quick": config.quick}
        finish("all", silent, argv, result, [table("All benchmarks", rows)])
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
