"""What asking a question several times costs: four orders of its options, eight samples of its chain.

In: a model and questions. Out: seconds and CPU seconds of each pass and its ratio to asking once, and the
tokens that were computed rather than found in the prefix cache. Passes go in turn, so that all see the same
machine. Samples are drawn one token long: what they cost beyond that is generation, and the same for each.
Knows nothing of the answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, spread, table
from bench.throughput import Memory, ThroughputConfig, prepare
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.schema import Generation, Request
from kmmlu_fast.evaluation import runner
from kmmlu_fast.models import model as models
from kmmlu_fast.prompting import tokens
from kmmlu_fast.prompting.methods import MultipleChoice
from kmmlu_fast.prompting.rotations import Rotations


class SharedConfig(BenchConfig):
    """python -m bench.shared: rotations and samples against asking once."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="compute type")
    limit: PositiveInt = Field(2, description="questions a subject, the file's first")
    rotations: PositiveInt = Field(4, description="orders of a question's options")
    samples: PositiveInt = Field(8, description="samples of a chain")


def measure(config: SharedConfig) -> list[dict[str, Any]]:
    """Rows by pass: once, rotated, a chain, its samples."""
    from kmmlu_fast.engines.vllm.cpu_kernels import compile_fused_norms
    from kmmlu_fast.engines.vllm.engine import EngineSettings
    from kmmlu_fast.engines.vllm.start import start_vllm

    model = models.resolve_model(config.model)
    tokenizer = models.load_tokenizer(model)
    chosen = ThroughputConfig.model_validate({"limit": config.limit, "dataset": config.dataset})
    asked, method = prepare(chosen, tokenizer)
    turned = Rotations(MultipleChoice("lm-eval", method.letter_ids), config.rotations)
    exemplars: dict[str, list[Any]] = {item.question.subject: [] for item in asked}
    rotated, _ = tokens.render_and_tokenise([item.question for item in asked], exemplars, turned, tokenizer)
    longest = max(len(ids) for item in rotated for ids in item.token_ids)
    length = -(-(longest + 32) // 256) * 256
    engine = start_vllm(
        EngineSettings(
            model=model.path,
            dtype=config.dtype,
            max_model_len=length,
            samples=True,
        )
    )

    def generate(samples: int) -> None:
        want = Generation(max_tokens=1, temperature=1.0, seed=0, num_samples=samples)
        chain = [
            Request(
                question_id=item.question.question_id,
                stage="reason",
                token_ids=tuple(item.token_id_lists()[0]),
                want=want,
            )
            for item in asked
        ]
        for _ in engine.generate(chain):
            pass

    def letters(chosen: list[tokens.TokenisedQuestion], how: Any) -> None:
        runner.ask_questions(engine, chosen, how, None, Memory(), "pass")

    passes: dict[str, Callable[[], None]] = {
        "letters, once": lambda: letters(asked, method),
        f"letters, {config.rotations} orders": lambda: letters(rotated, turned),
        "chain, 1 sample": lambda: generate(1),
        f"chain, {config.samples} samples": lambda: generate(config.samples),
    }
    letters(rotated[:2], turned)
    generate(1)
    compile_fused_norms()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
    computed: dict[str, int] = {}
    for turn in range(config.repeats):
        for name, run in passes.items():
            note(f"shared: {name}, turn {turn + 1}")
            engine._llm.reset_prefix_cache()
            before = engine.stats()
            began, cpu_began = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - began, time.process_time() - cpu_began))
            after = engine.stats()
            prompts, cached = (after[key] - before[key] for key in ("prompt_tokens", "cached_tokens"))
            if name.startswith("letters"):  # of a chain's samples vLLM tells the first one's alone
                computed[name] = prompts - cached
    engine.close()
    return rows_of(times, computed, len(asked))


def rows_of(
    times: dict[str, list[tuple[float, float]]], computed: dict[str, int], questions: int
) -> list[dict[str, Any]]:
    """A row a pass; every second one is compared with the one before it."""
    rows: list[dict[str, Any]] = []
    for name, found in times.items():
        row: dict[str, Any] = {
            "pass": name,
            "questions": questions,
            "sec": spread([sec for sec, _ in found], 3),
            "cpu_sec": spread([sec for _, sec in found], 3),
            "computed_tokens": computed.get(name),
        }
        once = rows[-1] if len(rows) % 2 else row
        for unit in ("sec", "cpu_sec"):
            row[f"times_{unit}"] = round(row[unit]["median"] / once[unit]["median"], 3)
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(SharedConfig, argv, "python -m bench.shared")
        rows = measure(config)
        shown = [{**row, "sec": row["sec"]["median"], "cpu_sec": row["cpu_sec"]["median"]} for row in rows]
        finish(
            "shared",
            config,
            argv,
            {"model": Path(config.model).name, "rows": rows},
            [table("A question asked several times (median)", shown)],
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
