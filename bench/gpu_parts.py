"""The parts of ``bench.gpu`` that are processes of their own: each opens what it needs, measures, and prints
one JSON line.

    passes      passes over the same questions in one engine (letters; zero-shot, then five-shot), with or without CUDA graphs,
                quantised, with LoRA enabled: the base's pass and an adapter's
    letters     the letters of 64 questions, by vLLM or by plain transformers on the same weights: compared by ``bench.gpu``
    cot         256 tokens a question
    memory      an engine that must run out of memory in its own process: what the user is told
    weights     random weights of the shape, written to disk
    matmul      the card's own rate of matrix products

In: a folder with ``data`` and ``model`` (``bench.gpu`` makes it). Knows nothing of targets.
"""  # noqa: E501

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.adapters import write_adapter
from bench.common import BenchConfig, matmul_rate
from bench.flops import shape_of
from bench.shape_model import write_random_weights
from bench.throughput import Memory, ThroughputConfig, prepare
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.evaluation import runner
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.models import model as models
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.prompting import tokens
from kmmlu_fast.prompting.methods import GenerateUntil, MultipleChoice

COT_TOKENS = 256
COMPARED = 64  # questions whose letters are compared
_RANK = 16
_TOO_MANY_BLOCKS = 100_000_000  # of the key-value cache: no card holds them


class PartConfig(BenchConfig):
    """python -m bench.gpu_parts: internal to bench.gpu."""

    part: Literal["matmul", "passes", "letters", "cot", "memory", "weights"] = Field(
        description="what to run in this process"
    )
    folder: Path = Field(description="where model and data lie")
    count: PositiveInt | None = Field(None, description="questions, drawn from all; default: all")
    shots: list[int] = Field([0], description="passes: exemplars of each pass, in one engine")
    graphs: bool = Field(
        False, description="passes: compile and capture CUDA graphs, which letters do not need"
    )
    lora: bool = Field(False, description="passes: enable LoRA; the base's pass, then an adapter's")
    quantization: str | None = Field(None, description="vLLM quantisation")
    by: Literal["vllm", "transformers"] = Field("vllm", description="letters: by which engine")


def asked_of(
    config: PartConfig, shots: int, tokenizer: Any
) -> tuple[list[tokens.TokenisedQuestion], MultipleChoice]:
    """The questions of a pass: a draw of ``count``, the same for every part, in the files' order."""
    chosen = ThroughputConfig.model_validate(
        {
            "dataset": str(config.folder / "data"),
            "all": True,
            "num_fewshot": shots,
            "model": str(config.folder / "model"),
        }
    )
    asked, method = prepare(chosen, tokenizer)
    if config.count and config.count < len(asked):
        asked = [asked[i] for i in sorted(random.Random(0).sample(range(len(asked)), config.count))]
    return asked, method


def passes(config: PartConfig) -> dict[str, Any]:
    """Seconds to start, and of each pass."""
    from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine

    model = models.resolve_model(str(config.folder / "model"))
    tokenizer = models.load_tokenizer(model)
    sets = [(shots, *asked_of(config, shots, tokenizer)) for shots in config.shots]
    longest = max(len(item.token_ids[0]) for _, asked, _ in sets for item in asked)
    adapters = []
    if config.lora:
        folder = config.folder / "adapter"
        if not folder.exists():
            write_adapter(folder, shape_of(model.config()), _RANK, 1, model.path)
        adapters = load_adapters([str(folder)], model, "serve")
    engine = VllmEngine(
        EngineSettings(
            model=model.path,
            load_format="dummy",
            quantization=config.quantization,
            max_model_len=-(-(longest + 32) // 256) * 256,
            generates=config.graphs,
            max_lora_rank=_RANK if config.lora else 0,
            num_adapters=len(adapters),
        )
    )
    rows = []
    for shots, asked, method in sets:
        for adapter in (None, *adapters):
            runner.ask_questions(engine, asked[:8], method, adapter, Memory(), "warm-up")
            engine._llm.reset_prefix_cache()
            speed = runner.ask_questions(engine, asked, method, adapter, Memory(), f"{shots}-shot")
            rows.append({"shots": shots, "adapter": adapter.name if adapter else None, **speed})
    found = {
        "start_sec": round(engine.start_sec, 1),
        "passes": rows,
        "seconds": rows[0]["seconds"],
        "questions": rows[0]["questions"],
    }
    engine.close()
    return {**found, "questions_per_sec": rows[0]["questions_per_sec"]}


def letters(config: PartConfig) -> dict[str, Any]:
    """Log-probabilities A-D of the same questions, in the files' order."""
    model = models.resolve_model(str(config.folder / "model"))
    asked, method = asked_of(config, 0, models.load_tokenizer(model))
    if config.by == "transformers":
        return {"letters": _by_transformers(model.path, asked, list(method.letter_ids))}
    from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine

    longest = max(len(item.token_ids[0]) for item in asked)
    engine = VllmEngine(
        EngineSettings(model=model.path, max_model_len=-(-(longest + 32) // 256) * 256, generates=False)
    )
    memory = Memory()
    runner.ask_questions(engine, asked, method, None, memory, "letters")
    engine.close()
    found = {row.question_id: [getattr(row, column) for column in LOGPROB_COLUMNS] for row in memory.rows}
    return {"letters": [found[item.question.question_id] for item in asked]}


def _by_transformers(
    path: str, asked: list[tokens.TokenisedQuestion], letter_ids: list[int]
) -> list[list[float]]:
    """One prompt at a time, no padding, logits in float32: nothing that could differ but the
    model's own arithmetic.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if has_gpu() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").to(device).eval()
    found = []
    with torch.no_grad():
        for item in asked:
            ids = torch.tensor([item.token_id_lists()[0]], device=device)
            found.append(model(input_ids=ids).logits[0, -1].float().log_softmax(-1)[letter_ids].tolist())
    return found


def compare(one: list[list[float]], two: list[list[float]]) -> dict[str, Any]:
    """How far two readings of the same letters are apart; a letter is another one only beyond a
    near tie of that size.
    """
    apart = [max(abs(a - b) for a, b in zip(x, y, strict=True)) for x, y in zip(one, two, strict=True)]
    best = [
        (max(range(len(x)), key=x.__getitem__), max(range(len(y)), key=y.__getitem__))
        for x, y in zip(one, two, strict=True)
    ]
    largest = max(apart, default=math.nan)
    clear = [
        a == b for (a, b), x in zip(best, one, strict=True) if sorted(x)[-1] - sorted(x)[-2] > 2 * largest
    ]
    return {
        "questions": len(one),
        "largest_nats": largest,
        "mean_nats": sum(apart) / max(len(apart), 1),
        "same_letter": sum(a == b for a, b in best),
        "clear": len(clear),
        "clear_and_same": sum(clear),
    }


def cot(config: PartConfig) -> dict[str, Any]:
    """Generation of 256 tokens a question: greedy, random weights hardly ever stop."""
    from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine

    model = models.resolve_model(str(config.folder / "model"))
    questions = dataset.load_questions(str(config.folder / "data"), "test", None)
    chosen = random.Random(0).sample(questions, min(config.count or len(questions), len(questions)))
    method = GenerateUntil("lm-eval", max_tokens=COT_TOKENS)
    asked, _ = tokens.render_and_tokenise(
        chosen, {name: [] for name in SUBJECTS}, method, models.load_tokenizer(model)
    )
    length = max(len(item.token_ids[0]) for item in asked) + COT_TOKENS + 32
    engine = VllmEngine(
        EngineSettings(model=model.path, load_format="dummy", max_model_len=-(-length // 256) * 256)
    )
    runner.ask_questions(engine, asked[:4], method, None, Memory(), "warm-up")
    speed = runner.ask_questions(engine, asked, method, None, Memory(), "cot")
    found = {
        **speed,
        "max_tokens": COT_TOKENS,
        "start_sec": round(engine.start_sec, 1),
        "cache_tokens": engine._cache_tokens,
    }
    engine.close()
    return found


def memory(config: PartConfig) -> dict[str, Any]:
    """Ask for a cache that no card holds: the engine's process dies, and the user's line must
    say what helps.
    """
    from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine

    if not has_gpu():  # the host's memory is not a card's: asking for too much of it takes the machine down
        return {"error": "no card", "advice": False}
    settings = EngineSettings(
        model=str(config.folder / "model"),
        load_format="dummy",
        max_model_len=1024,
        generates=False,
        extra=(("num_gpu_blocks_override", _TOO_MANY_BLOCKS),),
    )
    began = time.monotonic()
    try:
        VllmEngine(settings).close()
    except EngineError as error:
        line = str(error)
        sec = round(time.monotonic() - began, 1)
        return {
            "seconds": sec,
            "error": line,
            "advice": "fp8_per_channel" in line,
            "lines": line.count("\n") + 1,
        }
    return {"error": None, "advice": False}


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(PartConfig, argv, "python -m bench.gpu_parts")
        if config.part == "weights":
            write_random_weights(config.folder / "model")
            found: dict[str, Any] = {}
        else:
            parts: dict[str, Callable[[PartConfig], dict[str, Any]]]
            parts = {
                "passes": passes,
                "letters": letters,
                "cot": cot,
                "memory": memory,
                "matmul": lambda _: matmul_rate(),
            }
            found = parts[config.part](config)
        print(json.dumps(found))
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
