"""Replicas on Ray: questions a second with one, two, ... of them, and what is left of each one's speed.

In: a model, the dataset. Out: rate and efficiency (rate / replicas / rate of one replica) for each number of
replicas, every replica with the same cores or GPUs. Every repetition asks other questions of the same
subjects, so that no answer comes from a prefix cache that an earlier repetition filled. Starting the engines
is timed apart. Letters are compared: another number of replicas must not change them.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import Any

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, spread, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan
from kmmlu_fast.prompting.tokens import TokenisedQuestion

BLOCK_REQUESTS = 8  # smaller than in a run: a repetition must be many blocks for the replicas to share


class ScaleConfig(BenchConfig):
    """python -m bench.scale: questions/s on one and more replicas, with the efficiency."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    replicas: list[int] = Field(
        [1, 2], description="numbers of replicas, comma-separated; the first is the reference"
    )
    questions: PositiveInt = Field(96, description="questions a repetition")
    num_fewshot: int = Field(0, ge=0, le=5, description="exemplars from dev")
    cpus_per_replica: PositiveInt = Field(
        1, description="cores a replica computes with where there is no GPU"
    )
    load_format: str = Field("auto", description="vLLM load format; 'dummy' = random weights")
    ray_address: str | None = Field(None, description="cluster address; default: this machine")


class Letters:
    """Where predictions go: the letter of every question."""

    def __init__(self) -> None:
        self.by_question: dict[str, str | None] = {}

    def append(self, prediction: Prediction) -> None:
        self.by_question[prediction.question_id] = prediction.prediction


def plan_for(config: ScaleConfig) -> tuple[EvalPlan, list[list[TokenisedQuestion]]]:
    """The plan, and the questions of each repetition, the warm-up first: all subjects in each."""
    turns = config.repeats + 1
    flags = {
        "model": config.model,
        "dataset": config.dataset_name(),
        "num_fewshot": config.num_fewshot,
        "load_format": config.load_format,
    }
    plan = make_eval_plan(
        EvalConfig.model_validate({**flags, "limit": -(-config.questions * turns // len(SUBJECTS))})
    )
    parts = [plan.asked[turn::turns][: config.questions] for turn in range(turns)]
    if len(parts[-1]) < BLOCK_REQUESTS * max(config.replicas):
        raise ConfigError(
            f"--dataset {config.dataset}: {len(plan.asked)} questions are too few for {turns} passes; give"
            " fewer --repeats"
        )
    return plan, parts


def measure(
    config: ScaleConfig, plan: EvalPlan, parts: list[list[TokenisedQuestion]], replicas: int
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """One row of the table, and the letter of every question."""
    from kmmlu_fast.engines.ray.engine import RayEngine
    from kmmlu_fast.engines.vllm.engine import VllmEngine
    from kmmlu_fast.engines.vllm.start import vllm_engine_settings
    from kmmlu_fast.evaluation import runner

    note(f"{replicas} replica(s): starting")
    settings = vllm_engine_settings(plan.config, plan.model, [], plan.max_model_len)
    engine = RayEngine(
        functools.partial(VllmEngine, settings),
        replicas,
        address=config.ray_address,
        cpus_per_replica=config.cpus_per_replica,
        block_requests=BLOCK_REQUESTS,
    )
    rates, letters = [], Letters()
    try:
        for asked in parts:
            began = time.perf_counter()
            runner.ask_questions(engine, asked, plan.method, None, letters, f"{replicas} replica(s)")
            rates.append(len(asked) / (time.perf_counter() - began))
        stats = engine.stats()
    finally:
        engine.close()
    row = {
        "replicas": replicas,
        "start_sec": stats["start_sec"],
        "questions": len(parts[-1]),
        **_rate(rates[1:]),
    }
    return {
        **row,
        "placement": stats["placement"],
        "cached_tokens": stats["cached_tokens"],
    }, letters.by_question


def _rate(rates: list[float]) -> dict[str, Any]:
    found = spread(rates, 3)
    return {"questions_per_sec": found["median"], "questions_per_sec_spread": found["spread"]}


def main(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    config = parse_config(ScaleConfig, argv, "python -m bench.scale")
    plan, parts = plan_for(config)
    measured = [measure(config, plan, parts, replicas) for replicas in config.replicas]
    (first, reference), rows = measured[0], []
    for row, letters in measured:
        speedup = row["questions_per_sec"] / first["questions_per_sec"]
        same = sum(letters[name] == reference[name] for name in reference) / len(reference)
        efficiency = speedup * first["replicas"] / row["replicas"]
        rows.append(
            {
                **row,
                "speedup": round(speedup, 3),
                "efficiency": round(efficiency, 3),
                "same_letters": round(same, 4),
            }
        )
    shown = [
        {name: value for name, value in row.items() if name not in ("placement", "cached_tokens")}
        for row in rows
    ]
    title = (
        f"replicas on Ray, {config.model}, {config.num_fewshot}-shot, {config.cpus_per_replica} core(s) a"
        " replica where there is no GPU"
    )
    result = {
        "model": config.model,
        "num_fewshot": config.num_fewshot,
        "block_requests": BLOCK_REQUESTS,
        "replicas": rows,
    }
    finish("scale", config, argv, result, [table(title, shown)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
