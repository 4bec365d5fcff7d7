"""Many adapters of one base: what each costs beside its answers, and whether the hundredth costs more than
the fifth.

In: a model, questions, how many adapters (invented, of rank 1). Out: seconds per adapter and resident memory
after the fifth and after the last; seconds of the terminal's summary and verdicts, of ``--until-decided``,
and of showing it again, for a quarter of the adapters and for all: ``growth`` is 1 where four times as many
take four times as long, and 4 where it is quadratic. ``--engine fake`` answers at once, so that the project's
own work is all there is; ``--engine vllm`` is the real one, adapters written into it. Knows nothing of what
is answered.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.adapters import write_adapter
from bench.common import BenchConfig, finish, note, restart_peak, table
from bench.flops import shape_of
from bench.overhead import enlarge
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter, Request, Response
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models import model as models
from kmmlu_fast.runs.run import Run

EARLY_PLACE = 5  # the adapter after which memory is read first
FEWEST = 10
_CHANGED = (0.1, 0.7)  # of the fake engine's answers, by an adapter: the first is soon decided


class ManyConfig(BenchConfig):
    """python -m bench.many_adapters: what a hundred adapters of one base cost, and whether it grows."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    engine: Literal["fake", "vllm"] = Field("fake", description="answers at once, or a real engine")
    adapters: PositiveInt = Field(100, description="adapters of the base, of rank 1")
    questions: PositiveInt = Field(900, description="questions, about; rows are repeated if there are fewer")


class SimilarEngine(FakeEngine):
    """An adapter answers as the base does, but for some questions: few by the first, third, ... adapter,
    many by the others, so that one half is soon decided and the other never.
    """

    def _answer(self, request: Request) -> Response:
        adapter = request.adapter or self._held
        if adapter is None:
            return super()._answer(request)
        digest = hashlib.blake2b(repr((request.token_ids, adapter.name)).encode(), digest_size=8).digest()
        draw = random.Random(digest)
        if draw.random() < _CHANGED[int(adapter.name.rpartition("-")[2]) % 2]:
            return super()._answer(request)
        self._held, held = None, self._held
        answer = super()._answer(replace(request, adapter=None))
        self._held = held
        moved = tuple(value - 0.01 * draw.random() for value in answer.logprobs)
        return replace(answer, request=request, logprobs=moved)


class Swaps(logging.Handler):
    """When each adapter was written into the engine, in how many seconds, and the memory then."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[float] = []
        self.began_cpu: list[float] = []
        self.seconds: list[float] = []
        self.resident: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        before, found, after = record.getMessage().partition(": written into the running engine in ")
        if before and found:
            self.began.append(time.perf_counter())
            self.began_cpu.append(time.process_time())
            self.seconds.append(float(after.split()[0]))
            self.resident.append(restart_peak())


@contextlib.contextmanager
def watch_swaps() -> Any:
    """The swaps of the evaluation inside."""
    logger, swaps = logging.getLogger("kmmlu_fast"), Swaps()
    level = logger.level
    logger.addHandler(swaps)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield swaps
    finally:
        logger.removeHandler(swaps)
        logger.setLevel(level)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU, which a busy machine does not lengthen, and what was returned."""
    began = time.process_time()
    result = run()
    return round(time.process_time() - began, 3), result


def growth_of(some: float, every: float, times: float) -> float | None:
    """1: in proportion to the number of adapters; ``times``: to its square."""
    return round(every / some / times, 2) if some else None


def show_runs(runs: list[Run]) -> None:
    """What ``eval`` prints at its end: the summary, and a verdict per adapter."""
    from kmmlu_fast.reporting.terminal.eval_summary import adapter_verdict_lines
    from kmmlu_fast.reporting.terminal.summary import print_summary

    with contextlib.redirect_stdout(io.StringIO()):
        print_summary(runs)
        adapter_verdict_lines(runs)


def measure_many(config: ManyConfig, folder: Path) -> dict[str, Any]:
    """Everything, in this process."""
    if config.adapters < FEWEST:
        raise ConfigError(f"--adapters {config.adapters}: growth needs at least {FEWEST}")
    model = models.resolve_model(config.model)
    shape = shape_of(model.config())
    note(f"many_adapters: writing {config.adapters} adapters")
    paths = [
        str(write_adapter(folder / f"adapter-{place:03d}", shape, 1, place, model.path))
        for place in range(config.adapters)
    ]
    (folder / "data").mkdir()
    dataset = str(enlarge(config.dataset_name(), config.questions, folder / "data", distinct=True))
    flags = {"model": config.model, "dataset": dataset, "adapter_mode": "swap", "warm_engine": False}

    def evaluate(count: int, output: str, **more: Any) -> list[Run]:
        chosen = {**flags, "adapter": paths[:count], "output_dir": folder / output, **more}
        opened: dict[str, Any] = {}
        if config.engine == "fake":
            opened["open_engine"] = _open_fake
        return run_evaluation(EvalConfig.model_validate(chosen), **opened)

    quarter = max(EARLY_PLACE, config.adapters // 4)
    times = config.adapters / quarter
    note(f"many_adapters: {config.adapters} adapters, all questions")
    with watch_swaps() as swaps:
        _, runs = timed(lambda: evaluate(config.adapters, "full"))
    result: dict[str, Any] = {
        "engine": config.engine,
        "adapters": config.adapters,
        "questions": len(runs[0].frame),
        "adapter_sec": _ends(_steps(swaps.began)),
        "adapter_cpu_sec": _ends(_steps(swaps.began_cpu)),
        "swap_sec": _ends(swaps.seconds),
        "resident_mib": {
            f"after {EARLY_PLACE}": round(swaps.resident[EARLY_PLACE - 1] / 2**20),
            f"after {config.adapters}": round(swaps.resident[-1] / 2**20),
        },
    }
    result["mib_per_adapter"] = round(
        (swaps.resident[-1] - swaps.resident[EARLY_PLACE - 1]) / 2**20 / (config.adapters - EARLY_PLACE), 2
    )
    note("many_adapters: summary and verdicts")
    parts: dict[str, tuple[Callable[[], Any] | None, Callable[[], Any]]] = {
        "summary and verdicts": (lambda: show_runs(runs[: quarter + 1]), lambda: show_runs(runs)),
        "shown again": (None, lambda: evaluate(config.adapters, "full")),
    }
    if config.engine == "fake":
        early = {"until_decided": True, "margin": 5.0, "order": "adaptive"}
        parts["until decided"] = (
            lambda: evaluate(quarter, "quarter", **early),
            lambda: evaluate(config.adapters, "early", **early),
        )
    rows = []
    for name, (some, every) in parts.items():
        some_sec = timed(some)[0] if some else None
        every_sec = timed(every)[0]
        row = {"what": name, f"{quarter} adapters, CPU s": some_sec}
        row |= {f"{config.adapters} adapters, CPU s": every_sec}
        rows.append({**row, "growth": growth_of(some_sec or 0.0, every_sec, times)})
    return result | {"rows": rows}


def _open_fake(adapters: list[Adapter], max_model_len: int, path: str | None) -> SimilarEngine:
    return SimilarEngine()


def _steps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def _ends(values: list[float]) -> dict[str, float]:
    """Medians of the first and the last quarter: what grows with the number shows between them."""
    part = max(1, len(values) // 4)
    return {
        "first quarter": round(statistics.median(values[:part]), 3),
        "last quarter": round(statistics.median(values[-part:]), 3),
    }


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(ManyConfig, argv, "python -m bench.many_adapters")
        with tempfile.TemporaryDirectory() as folder:
            result = measure_many(config, Path(folder))
        each = [{"what": name, **result[name]} for name in ("adapter_sec", "adapter_cpu_sec", "swap_sec")]
        title = f"{result['adapters']} adapters, {result['questions']} questions, {result['engine']} engine"
        tables = [table(title, each), table("Memory, MiB", [result["resident_mib"]])]
        finish("many_adapters", config, argv, result, [*tables, table("Growth", result["rows"])])
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
