"""Questions until "which of two runs is better?" is decided, over all pairs of public runs; how often
wrongly.

In: a predictions table (``FILE.csv`` with ``_config`` and ``_row``, a column a run). Out: mean questions by
the size of the true difference, wrong signs, decisions where there is no difference (exact nulls), coverage
of the confidence sequence at stopping. No engine. The first run of a pair is known on all questions, as a
finished base is; expectations come from the key and from how easy a question was for runs of *other vendors
than the pair's own*. Each pair is asked in ``--permutations`` random orders, each null in one of its own.

An exact null is a real pair whose disagreements are dealt out anew, half to each side, so that the difference
is zero to the question, while everything else about the pair stays as it is.
"""

from __future__ import annotations

import math
import sys
import time
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from bench import decide_adapters, decide_engine, decide_like
from bench.analysis import REFERENCE
from bench.common import BenchConfig, finish, note, table
from kmmlu_fast.analysis.sequential import betting, control_variate
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.data.difficulty import estimate_ease
from kmmlu_fast.runs.loading import load_all_runs

_EDGES = {"0-0.5": 0.0, "0.5-1": 0.005, "1-2": 0.01, "2-5": 0.02, "5-10": 0.05, "10-": 0.1}
BINS = dict(zip(_EDGES, pairwise([*_EDGES.values(), 2.0]), strict=True))  # of the difference's size, 0-1
TARGETS = {"1-2": 5800, "2-5": 1800, "5-10": 500}  # mean questions at most
_PREFIXES = (1500, 6000)  # of the questions, before all of them: most pairs are decided in the first
_CLOSE = 0.02  # pairs closer than this are asked once more with the stop for equality

Rights = NDArray[np.bool_]
Row = dict[str, Any]  # of one pair in one order: what ``ask`` found


class DecideConfig(BenchConfig):
    """python -m bench.decide: questions until decided, and wrong decisions, over all pairs of public runs."""

    predictions: Path | None = Field(None, description=f"predictions table; default: {REFERENCE}")
    permutations: PositiveInt = Field(40, description="random orders in which each pair is asked")
    nulls: PositiveInt = Field(1200, description="exact nulls")
    seed: int = Field(42, description="seed of the orders and of the nulls")
    margin: float = Field(1.0, gt=0, description="pp; for the row with the stop 'equal within the margin'")
    adapters: bool = Field(
        False, description="invented adapters of one finished base instead: adaptive and uniform order"
    )
    adapter_repeats: PositiveInt = Field(30, description="adapters: bases, each with nine adapters")
    adapter_nulls: int = Field(150, ge=0, description="adapters: exact nulls")
    adapter_tens: int = Field(20, ge=0, description="adapters: times ten adapters at once, nine of them null")
    engine: bool = Field(False, description="with a real engine instead: seconds until --adapter is decided")
    model: str = Field("demo", description="engine: hub id, directory, or 'demo'")
    adapter: str | None = Field(None, description="engine: the LoRA adapter's directory")
    limit: PositiveInt | None = Field(None, description="engine: questions a subject at most")
    orders: bool = Field(
        False, description="engine: finish the base first, then decide in the uniform and the adaptive order"
    )
    order_seeds: list[int] = Field([42], description="orders: seeds, each an order of either kind")
    finished: Path | None = Field(
        None,
        description="orders: an output directory of eval with the base's whole pass; default: asked here",
    )
    peer_limit: int = Field(
        1, ge=0, description="engine: questions a subject for lm-eval's rate; 0 = without lm-eval"
    )


class Pairs:
    """The runs' answers, and what is known of the questions where a pair's own vendors do not count."""

    def __init__(self, path: Path) -> None:
        frames = {run.name: run.frame for run in load_all_runs([str(path)])}
        first = next(iter(frames.values()))
        self.names = list(frames)
        self.right = np.stack([frame["correct"].to_numpy() for frame in frames.values()])
        self.subjects = first["subject"].to_list()
        self.key = np.array([LETTERS.index(letter) for letter in first["answer"]])
        self._ease: dict[frozenset[str], NDArray[np.float64] | None] = {}

    def ease(self, i: int, j: int) -> NDArray[np.float64] | None:
        """From the runs of all vendors but these two's; None where no run is left."""
        own = frozenset((vendor(self.names[i]), vendor(self.names[j])))
        if own not in self._ease:
            others = [place for place, name in enumerate(self.names) if vendor(name) not in own]
            self._ease[own] = estimate_ease(self.right[others], self.subjects) if others else None
        return self._ease[own]


def vendor(name: str) -> str:
    """Whose model it is: the first word of its name (claude, gpt, llama, nova, phi)."""
    return name.split("-")[0].lower()


def ask(
    first: Rights, second: Rights, known: control_variate.KnownQuestions, margin: float | None = None
) -> Row:
    """One pair in one order: verdict, questions until then, and whether the truth was refuted by then."""
    total, truth = known.total, float(second.mean() - first.mean())
    for prefix in (*(count for count in _PREFIXES if count < total), total):
        stream = control_variate.paired_stream(first, second[:prefix], known)
        verdict, at = betting.first_verdict(stream, margin=margin)
        if at is not None:
            break
    questions = total if at is None else at
    refuted = [betting.crossing_time(stream, truth, side) for side in (1, -1)]
    covered = all(place is None or place > questions for place in refuted)
    return {"difference": truth, "verdict": verdict, "questions": questions, "covered": covered}


def known_of(pairs: Pairs, i: int, j: int, order: NDArray[np.int64]) -> control_variate.KnownQuestions:
    numbers = pairs.ease(i, j)
    return control_variate.KnownQuestions(
        len(order), None if numbers is None else numbers[order], pairs.key[order]
    )


def null_of(first: Rights, second: Rights, draw: np.random.Generator) -> tuple[Rights, Rights]:
    """The pair with its disagreements dealt out half and half; of an odd number, one becomes an agreement."""
    one, other = first.copy(), second.copy()
    differing = draw.permutation(np.flatnonzero(first != second))
    half = len(differing) // 2
    one[differing], other[differing] = False, False
    one[differing[:half]], other[differing[half : 2 * half]] = True, True
    return one, other


def share(count: int, of: int) -> dict[str, Any]:
    """A share with its exact 95 % interval (Clopper and Pearson)."""
    from scipy.stats import binomtest

    found = binomtest(count, of).proportion_ci(method="exact")
    ends = {"low": round(found.low, 5), "high": round(found.high, 5)}
    return {"count": count, "of": of, "share": round(count / of, 5), **ends}


def mean_of(values: list[int]) -> dict[str, Any]:
    """A mean with its 95 % interval over the random orders."""
    numbers = np.array(values, dtype=float)
    half = 1.96 * numbers.std(ddof=1) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
    mean, median = float(numbers.mean()), float(np.median(numbers))
    ends = {"low": round(mean - half), "high": round(mean + half)}
    return {"mean": round(mean), **ends, "median": round(median), "of": len(numbers)}


def wrong(row: Row) -> bool:
    """Whether the sign that was claimed is not the true one."""
    claimed: str = row["verdict"]
    return claimed in ("better", "worse") and (claimed == "better") != bool(row["difference"] > 0)


def measure(pairs: Pairs, config: DecideConfig) -> dict[str, Any]:
    """Every pair in every order, then the nulls."""
    total, margin = len(pairs.key), config.margin / 100
    every = list(combinations(range(len(pairs.names)), 2))
    rows, close = [], []
    began = time.perf_counter()
    for number in range(config.permutations):
        note(f"decide: order {number + 1} of {config.permutations}, {time.perf_counter() - began:.0f} s")
        for i, j in every:
            order = np.random.default_rng([config.seed, number, i, j]).permutation(total)
            first, second, known = pairs.right[i][order], pairs.right[j][order], known_of(pairs, i, j, order)
            rows.append(ask(first, second, known))
            if abs(rows[-1]["difference"]) < _CLOSE:
                close.append(ask(first, second, known, margin))
    note(f"decide: {config.nulls} exact nulls")
    nulls = []
    draw = np.random.default_rng([config.seed, 1])
    for number in range(config.nulls):
        i, j = every[number % len(every)]
        order = draw.permutation(total)
        one, other = null_of(pairs.right[i], pairs.right[j], draw)
        nulls.append(ask(one[order], other[order], known_of(pairs, i, j, order)))
    return {**summary(rows, close, nulls, margin), "seconds": round(time.perf_counter() - began, 1)}


def summary(rows: list[Row], close: list[Row], nulls: list[Row], margin: float) -> dict[str, Any]:
    """What the JSON line holds."""
    intervals, equal = by_size(rows), by_size(close)
    wrongs = share(sum(map(wrong, rows)), len(rows))
    decided = share(sum(row["verdict"] in ("better", "worse") for row in nulls), len(nulls))
    covered = share(sum(row["covered"] for row in [*rows, *nulls]), len(rows) + len(nulls))
    false_equal = sum(row["verdict"] == "equal" and abs(row["difference"]) > margin for row in close)
    shares = {"wrong_sign_share": wrongs, "null_decided_share": decided, "coverage_at_stop": covered}
    with_equality = {"mean_questions_with_margin": equal}
    if close:
        with_equality["wrongly_equal_share"] = share(false_equal, len(close))
    within = {name: intervals[name]["mean"] <= most for name, most in TARGETS.items() if name in intervals}
    within |= {name: shares[name]["share"] < 0.05 for name in ("wrong_sign_share", "null_decided_share")}
    return {
        "mean_questions": {name: found["mean"] for name, found in intervals.items()},
        **{name: found["share"] for name, found in shares.items()},
        "intervals": {"mean_questions": intervals, **shares, **with_equality},
        "within": within,
    }


def by_size(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Questions until decided, by the size of the true difference."""
    found = {}
    for name, (low, high) in BINS.items():
        if some := [row["questions"] for row in rows if low <= abs(row["difference"]) < high]:
            found[name] = mean_of(some)
    return found


def tables_of(result: dict[str, Any], margin: float) -> list[str]:
    """What people read."""
    found = result["intervals"]
    margins = found["mean_questions_with_margin"]
    shown = []
    for name, row in found["mean_questions"].items():
        equal = margins[name]["mean"] if name in margins else None
        shown.append({"difference, pp": name, **row, f"or equal within {margin:g} pp": equal})
    shares = [{"what": name, **row} for name, row in found.items() if name.endswith(("_share", "_at_stop"))]
    return [table(f"Questions of {result['questions']:,} until decided", shown), table("Shares", shares)]


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(DecideConfig, argv, "python -m bench.decide")
        if config.engine:
            if config.adapter is None:
                raise ConfigError("--engine needs --adapter, the directory of a LoRA adapter")
            found = decide_engine.measured(
                model=config.model,
                adapter=config.adapter,
                dataset=config.dataset_name(),
                limit=config.limit,
                margin=config.margin,
                peer_limit=config.peer_limit,
                orders=config.orders,
                seeds=config.order_seeds,
                finished=config.finished,
            )
            finish("decide", config, argv, found, [table("Until decided", decide_engine.shown(found))])
            return 0
        if config.adapters:
            counts = (config.adapter_repeats, config.adapter_nulls, config.adapter_tens)
            result = decide_adapters.measure_adapters(*counts, config.seed)
            result |= decide_like.measure_like(config.adapter_nulls, config.adapter_repeats, config.seed)
            shown = [*decide_adapters.tables_of_adapters(result), *decide_like.tables_of_like(result)]
            finish("decide", config, argv, result, shown)
            return 0
        path = config.predictions or REFERENCE
        if not path.exists():
            raise ConfigError(
                f"--predictions {path}: does not exist; give a CSV with _config, _row and runs' letters"
            )
        pairs = Pairs(path)
        if len(pairs.names) < 2:
            raise ConfigError(f"--predictions {path}: holds one run; two at least are needed to compare")
        result = measure(pairs, config)
        result |= {"questions": len(pairs.key), "runs": len(pairs.names)}
        result |= {"alpha": betting.ALPHA, "targets": TARGETS}
        finish("decide", config, argv, result, tables_of(result, config.margin))
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
