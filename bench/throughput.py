"""How fast a pass is here, how far from the device's limit, and where the time goes.

In: a model and questions. Out: questions/s, tokens/s, the share of the device's measured matmul rate that the
model's FLOPs achieve, prefix-cache hit rate, and seconds by stage (scheduling, model, sampling, our own
work). ``--sweep`` repeats it for other batch settings, each in a process of its own. The matmul rate is
measured between the passes, so that both see the same machine. Knows nothing of other tools (``peers``).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, matmul_rate, note, products_rate, run_child, spread, table
from bench.flops import Shape, pass_flops, shape_of
from bench.stages import Stages
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Prediction, Request, Response
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.engines.protocol import Engine, FollowUp
from kmmlu_fast.evaluation import runner
from kmmlu_fast.models import model as models
from kmmlu_fast.prompting import tokens
from kmmlu_fast.prompting.method_choice import prompt_letter_tokens
from kmmlu_fast.prompting.methods import MultipleChoice

if TYPE_CHECKING:
    from kmmlu_fast.engines.vllm.engine import EngineSettings


class ThroughputConfig(BenchConfig):
    """python -m bench.throughput: questions/s, share of the hardware's limit, and where the time goes."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="compute type")
    quantization: str | None = Field(None, description="vLLM quantisation, such as fp8_per_channel")
    graphs: bool = Field(
        False, description="GPU: compile and capture CUDA graphs, as for generated text; letters run without"
    )
    load_format: str = Field("auto", description="'dummy' = random weights")
    limit: PositiveInt | None = Field(5, description="questions a subject, the file's first")
    all: bool = Field(False, description="all questions, whatever --limit says")
    num_fewshot: int = Field(0, ge=0, le=5, description="exemplars from dev")
    max_num_seqs: PositiveInt | None = Field(
        None, description="requests in a batch; default: the product's own"
    )
    max_num_batched_tokens: PositiveInt | None = Field(
        None, description="tokens in a step; default: the product's own"
    )
    order: Literal["file", "length", "shuffled"] = Field("file", description="order of the questions")
    sweep: list[str] = Field(
        [], description="TOKENS:SEQS[:ORDER] settings, each measured in its own process, such as 4096:128"
    )
    norms: Literal["joined", "eager"] = Field(
        "joined", description="CPU: this project's joined layer norms, or vLLM's own"
    )
    largest_matmul: PositiveInt = Field(
        4096, description="CPU: the largest matrices whose products give the matmul rate"
    )
    prefix_caching: bool = Field(
        True, description="vLLM's prefix cache; --no-prefix-caching shows what it brings"
    )


class Memory:
    """Keeps predictions in memory: the pass without files."""

    def __init__(self) -> None:
        self.rows: list[Prediction] = []

    def append(self, prediction: Prediction) -> None:
        self.rows.append(prediction)


def measure(
    config: ThroughputConfig, open_engine: Callable[[EngineSettings], Any] | None = None
) -> dict[str, Any]:
    """One engine: warm-up, then passes, the matmul rate between them. ``open_engine`` replaces
    ``start_vllm``.
    """
    from kmmlu_fast.engines.vllm.cpu_kernels import compile_fused_norms
    from kmmlu_fast.engines.vllm.engine import EngineSettings
    from kmmlu_fast.engines.vllm.start import start_vllm

    model = models.resolve_model(config.model)
    shape, tokenizer = shape_of(model.config()), models.load_tokenizer(model)
    began = time.perf_counter()
    asked, method = prepare(config, tokenizer)
    tokenise_sec = time.perf_counter() - began
    longest = max(len(item.token_ids[0]) for item in asked)
    extra: dict[str, Any] = {} if config.prefix_caching else {"enable_prefix_caching": False}
    extra |= {"kernel_config": {}} if config.norms == "eager" else {}
    settings = EngineSettings(
        model=model.path,
        dtype=config.dtype,
        quantization=config.quantization,
        load_format=config.load_format,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        generates=config.graphs,
        max_model_len=-(-(longest + 32) // 256) * 256,
        extra=tuple(extra.items()),
    )
    engine = (open_engine or start_vllm)(settings)
    scheduler = engine._llm.llm_engine.vllm_config.scheduler_config
    batch = {
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "max_num_seqs": scheduler.max_num_seqs,
    }
    runner.ask_questions(engine, asked[:4], method, None, Memory(), "warm-up")
    if config.norms == "joined":
        compile_fused_norms()
    passes, rates = [], [matmul_rate(config.dtype, 3, config.largest_matmul)]
    stages, watched = Stages(engine._engine), Watched(engine)
    for _ in range(config.repeats):
        engine._llm.reset_prefix_cache()
        stages.clear()
        watched.cached.clear()
        began, cpu_began = time.perf_counter(), time.process_time()
        runner.ask_questions(watched, asked, method, None, Memory(), "pass")
        total = time.perf_counter() - began
        cpu_sec = time.process_time() - cpu_began
        passes.append(
            {
                "sec": total,
                "cpu_sec": cpu_sec,
                **stages.seconds,
                "our_own": total - sum(stages.seconds.values()),
            }
        )
        rates.append(matmul_rate(config.dtype, 3, config.largest_matmul))
    prompts = [(len(item.token_ids[0]), watched.cached[item.question.question_id]) for item in asked]
    start_sec = engine.start_sec
    engine.close()
    about = {**batch, "start_sec": round(start_sec, 1), "tokenise_sec": round(tokenise_sec, 3)}
    return {**about, **summarise(config, shape, batch["max_num_batched_tokens"], passes, rates, prompts)}


class Watched:
    """The engine, with each question's cached tokens written down."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.cached: dict[str, int] = {}

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        for response in self.engine.generate(requests, follow_up):
            self.cached[response.request.question_id] = response.cached_tokens
            yield response

    def stats(self) -> dict[str, Any]:
        return self.engine.stats()

    def close(self) -> None:
        self.engine.close()


def prepare(
    config: ThroughputConfig, tokenizer: Any
) -> tuple[list[tokens.TokenisedQuestion], MultipleChoice]:
    """Questions rendered and tokenised, in the order asked for."""
    subjects, name = list(SUBJECTS.values()), config.dataset_name()
    questions = dataset.select_questions(
        dataset.load_questions(name, "test", subjects), None if config.all else config.limit, "first", 0
    )
    exemplars = dataset.load_kmmlu_exemplars(name, subjects, config.num_fewshot)
    letters = prompt_letter_tokens("lm-eval", questions, exemplars, tokenizer)
    if letters.ids is None:
        raise ConfigError(
            f"--model {config.model}: the bench needs letters of one token each, and {letters.reason}"
        )
    method = MultipleChoice("lm-eval", letters.ids)
    asked, _ = tokens.render_and_tokenise(questions, exemplars, method, tokenizer)
    if config.order == "length":
        asked.sort(key=lambda item: len(item.token_ids[0]))
    elif config.order == "shuffled":
        asked = [asked[i] for i in _shuffled(len(asked))]
    return asked, method


def _shuffled(count: int) -> list[int]:
    import random

    places = list(range(count))
    random.Random(0).shuffle(places)
    return places


def summarise(
    config: ThroughputConfig,
    shape: Shape,
    batch_tokens: int,
    passes: list[dict[str, float]],
    rates: list[dict[str, Any]],
    prompts: list[tuple[int, int]],
) -> dict[str, Any]:
    """Medians over the passes; the limit is the median of the rates measured between them.
    ``prompts``: (tokens, cached tokens).
    """
    seconds, flops = spread([p["sec"] for p in passes], 3), pass_flops(shape, prompts)
    limit = statistics.median(rate["gflop_per_sec"]["median"] for rate in rates)
    own = products_rate(
        [(inputs, outputs) for _, inputs, outputs in shape.products], batch_tokens, config.dtype
    )
    achieved = flops["total"] / seconds["median"] / 1e9
    tokens, cached = sum(n for n, _ in prompts), sum(hit for _, hit in prompts)
    return {
        "model": Path(config.model).name,
        "dtype": config.dtype,
        "quantization": config.quantization,
        "num_fewshot": config.num_fewshot,
        "order": config.order,
        "norms": config.norms,
        "prefix_caching": config.prefix_caching,
        "questions": len(prompts),
        "prompt_tokens": tokens,
        "prefix_cache_hit_rate": round(cached / tokens, 4),
        "seconds": seconds,
        "cpu_seconds": spread([p["cpu_sec"] for p in passes], 3),
        "questions_per_sec": round(len(prompts) / seconds["median"], 2),
        "prompt_tokens_per_sec": round(tokens / seconds["median"], 1),
        "gflop": {name: round(value / 1e9, 1) for name, value in flops.items()},
        "gflop_per_sec": round(achieved, 1),
        "matmul_gflop_per_sec": round(limit, 1),
        "share_of_matmul_rate": round(achieved / limit, 4),
        "own_shapes_gflop_per_sec": round(own, 1),
        "share_of_own_shapes_rate": round(achieved / own, 4),
        "stage_sec": {
            name: round(statistics.median(p.get(name, 0.0) for p in passes), 3)
            for name in passes[0]
            if name not in ("sec", "cpu_sec")
        },
    }


def sweep(config: ThroughputConfig) -> list[dict[str, Any]]:
    """The same measurement for each setting, in its own process."""
    found = []
    for setting in config.sweep:
        tokens, _, rest = setting.partition(":")
        seqs, _, order = rest.partition(":")
        if not (tokens.isdigit() and seqs.isdigit()):
            raise ConfigError(
                f"--sweep {setting}: give TOKENS:SEQS or TOKENS:SEQS:ORDER, such as 4096:128:length"
            )
        note(f"sweep: {setting}")
        flags = ["--max-num-batched-tokens", tokens, "--max-num-seqs", seqs, "--order", order or config.order]
        for name in (
            "model",
            "dtype",
            "quantization",
            "load_format",
            "limit",
            "num_fewshot",
            "norms",
            "repeats",
            "dataset",
        ):
            value = getattr(config, name)
            flags += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        flags += ["--all"] if config.all else []
        flags += ["--graphs"] if config.graphs else []
        flags += [] if config.prefix_caching else ["--no-prefix-caching"]
        found.append(run_child(["bench.throughput", *flags]))
    return found


_SHOWN = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "order",
    "norms",
    "questions",
    "questions_per_sec",
    "prompt_tokens_per_sec",
    "prefix_cache_hit_rate",
    "gflop_per_sec",
    "matmul_gflop_per_sec",
    "share_of_matmul_rate",
    "start_sec",
)


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(ThroughputConfig, argv, "python -m bench.throughput")
        rows = sweep(config) if config.sweep else [measure(config)]
        shown = table(
            f"{rows[0]['model']}, {config.num_fewshot}-shot (median)",
            [{name: row[name] for name in _SHOWN} for row in rows],
        )
        stages = [
            {"tokens": row["max_num_batched_tokens"], "seqs": row["max_num_seqs"], **row["stage_sec"]}
            for row in rows
        ]
        where = table("seconds by stage", stages)
        finish("throughput", config, argv, rows[0] if len(rows) == 1 else {"rows": rows}, [shown, where])
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
