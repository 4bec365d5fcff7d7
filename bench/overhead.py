"""Everything but the model: ``evaluate`` as users run it, with a fake engine, at the whole test split's size.

In: the dataset, a tokenizer. Out: seconds of each stage (read and render, ask and score and store, metrics)
and the peak memory, at 1x and 4x the questions, each in a process of its own so that the peak is its own; CPU
seconds beside the clock's, for a busy machine. Bounds: 35,030 questions in under 20 s on two cores and under
1 GiB, and linear. Knows nothing of vLLM.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, PositiveInt

from bench.common import (
    BenchConfig,
    finish,
    note,
    peak_memory_bytes,
    peak_since_restart,
    restart_peak,
    run_child,
    spread,
    table,
)
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.data.subjects import SUBJECTS

QUESTIONS = 35_030  # KMMLU's test split; a smaller dataset is repeated up to it
MAX_SEC, MAX_GIB = 20.0, 1.0


class OverheadConfig(BenchConfig):
    """python -m bench.overhead: seconds and memory of the whole pass without the model."""

    model: str = Field("demo", description="whose tokenizer: hub id, directory, or 'demo'")
    factors: list[int] = Field([1, 4], description="multiples of 35,030 questions, comma-separated")
    num_fewshot: int = Field(0, ge=0, le=5, description="exemplars from dev")
    questions: PositiveInt = Field(QUESTIONS, description="questions at factor 1")
    child: bool = Field(
        False, description="internal: measure --dataset as it is in this process, print JSON only"
    )


def measure(config: OverheadConfig) -> dict[str, Any]:
    """One evaluation of the whole dataset with a fake engine in this process: seconds by stage,
    peak bytes.
    """
    began = time.perf_counter()
    from kmmlu_fast.engines.fake import FakeEngine
    from kmmlu_fast.evaluation import model_states, runner
    from kmmlu_fast.evaluation import plan as planning
    from kmmlu_fast.evaluation import session as evaluation
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.models import model as models
    from kmmlu_fast.runs import store

    # Libraries and vocabulary are loaded first and counted apart: any engine needs them as well.
    tokenizer = models.load_tokenizer(models.resolve_model(config.model))
    libraries_sec, libraries_bytes, libraries_cpu_sec = (
        time.perf_counter() - began,
        peak_memory_bytes(),
        time.process_time(),
    )
    vars(planning)["open_tokenizer"] = lambda model: tokenizer
    watch, resident_bytes = Stopwatch(), restart_peak()
    watch.follow(model_states, "make_eval_plans", "read_render")  # tokens are made beside the asking
    watch.follow(runner, "ask_questions", "ask_score_store")
    watch.follow(store.RunStore, "finish", "join_metrics")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            "model": config.model,
            "dataset": config.dataset,
            "num_fewshot": config.num_fewshot,
            "output_dir": Path(folder, "runs"),
        }
        (run,) = evaluation.run_evaluation(
            EvalConfig.model_validate(flags), lambda adapters, max_model_len, path: FakeEngine()
        )
        own_sec = time.perf_counter() - began
    own_bytes = peak_since_restart() - resident_bytes
    return {
        "questions": len(run.frame),
        "prompt_tokens": int(run.frame["prompt_tokens"].sum()),
        "total_sec": libraries_sec + own_sec,
        "cpu_sec": time.process_time(),
        "own_cpu_sec": time.process_time() - libraries_cpu_sec,
        "libraries_tokenizer_sec": libraries_sec,
        "own_sec": own_sec,
        **{f"{stage}_sec": value for stage, value in watch.seconds.items()},
        "rest_sec": own_sec - sum(watch.seconds.values()),
        "libraries_tokenizer_peak_gib": libraries_bytes / 2**30,
        "own_gib": own_bytes / 2**30,
        "peak_gib": peak_memory_bytes() / 2**30,
    }


class Stopwatch:
    """Seconds spent in functions that it wraps, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def follow(self, owner: Any, name: str, stage: str) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

        setattr(owner, name, wrapped)


def enlarge(dataset: str, questions: int, folder: Path, distinct: bool = False) -> Path:
    """A directory of the hub's layout with that many test questions: the dataset's files, rows repeated or
    cut evenly.

    ``distinct`` numbers repeated rows, so that a prefix cache does not find them again.
    """
    from kmmlu_fast.data.dataset import load_frame

    test, dev = (load_frame(dataset, split) for split in ("test", "dev"))
    for (name,), rows in test.group_by("subject", maintain_order=True):
        wanted = round(questions * len(rows) / len(test))
        take = pl.Series("take", [i % len(rows) for i in range(max(1, wanted))])
        taken = rows[take]
        if distinct and wanted > len(rows):
            taken = taken.with_columns(
                pl.format("({}) {}", pl.int_range(pl.len()), "question").alias("question")
            )
        _write(taken, folder, str(name), "test")
    for (name,), rows in dev.group_by("subject", maintain_order=True):
        _write(rows, folder, str(name), "dev")
    return folder


def _write(rows: pl.DataFrame, folder: Path, subject: str, split: str) -> None:
    letters = {letter: str(i) for i, letter in enumerate("ABCD", start=1)}
    columns = rows.select("question", pl.col("answer").replace_strict(letters), "A", "B", "C", "D")
    columns.write_csv(folder / f"{SUBJECTS[subject].stem}-{split}.csv")


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(OverheadConfig, argv, "python -m bench.overhead")
        if config.child:
            print(json.dumps(measure(config)))
            return 0
        flags = ["--model", config.model, "--num-fewshot", str(config.num_fewshot), "--child"]
        rows: list[dict[str, Any]] = []
        for factor in config.factors:
            runs = []
            with tempfile.TemporaryDirectory() as folder:
                enlarge(config.dataset_name(), config.questions * factor, Path(folder))
                for turn in range(config.repeats):
                    note(f"{factor}x, repetition {turn + 1} of {config.repeats}")
                    runs.append(run_child(["bench.overhead", "--dataset", folder, *flags]))
            rows.append({"factor": factor, **{key: spread([run[key] for run in runs], 3) for key in runs[0]}})
        first, last = rows[0], rows[-1]
        growth = (
            last["own_cpu_sec"]["median"]
            / first["own_cpu_sec"]["median"]
            / (last["factor"] / first["factor"])
        )
        within = bool(first["total_sec"]["median"] < MAX_SEC and first["own_gib"]["median"] < MAX_GIB)
        bounds = {
            "max_sec": MAX_SEC,
            "max_gib": MAX_GIB,
            "within": within,
            "time_growth_per_factor": round(growth, 3),
        }
        shown = [
            {"factor": r["factor"], **{k: v["median"] for k, v in r.items() if k != "factor"}} for r in rows
        ]
        finish(
            "overhead",
            config,
            argv,
            {"rows": rows, "bounds": bounds},
            [table("Pass without the model (median)", shown)],
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
