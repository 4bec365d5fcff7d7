"""The parts of ``bench.gpu`` that are processes of their own: this one picks a part, runs it, and prints its JSON.

In: a part's name, a folder for questions, model and adapters (``files`` and ``weights`` fill it), sizes. Out: one
JSON line, last on stdout. The parts that need no vLLM are in ``gpu_first_parts``. Knows nothing of targets or of
time limits.
"""  # noqa: E501

from __future__ import annotations

import json
import math
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig
from bench.gpu_commands import die_with_parent, is_in_place, run_command, run_for_json
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS
from kmmlu_fast.machine.device import first_gpu, has_gpu
from kmmlu_fast.machine.memory_fit import FP8

COT_TOKENS, _FEW_TOKENS = 256, 32
COMPARED = 64  # questions whose letters are compared
_RANK = 16
_TOO_MANY_BLOCKS = 100_000_000  # of the key-value cache: no card holds them


class PartConfig(BenchConfig):
    """python -m bench.gpu_parts: internal to bench.gpu."""

    part: str = Field(description="what to run in this process")
    folder: Path = Field(description="where questions, model and adapters lie")
    shape: str = Field("tiny", description="the model's shape")
    questions: PositiveInt = Field(450, description="questions of a full pass")
    some: PositiveInt = Field(90, description="questions of a short pass")
    cot_questions: PositiveInt = Field(16, description="questions of chain of thought")
    train_rows: PositiveInt = Field(8, description="rows to train on")
    by: Literal["both", "vllm", "transformers"] = Field(
        "both", description="letters: internal, by which engine"
    )

    def part_words(self) -> list[str]:
        """The flags of this part."""
        names = ("part", "folder", "shape", "questions", "some", "cot_questions", "train_rows", "dataset")
        return [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(self, name)))]

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    @property
    def model_path(self) -> str:
        return str(self.folder / "model")


def fp8_name() -> str:
    """The fp8 that this card computes: from Ada on with weights and activations in fp8, before with the
    weights alone.
    """
    card = first_gpu()
    return "fp8_per_channel" if card is None or card.capability >= FP8 else "fp8_per_tensor"


def most_shots(data: str) -> int:
    """Five exemplars, or as many as every subject of the dataset has (the packaged sample: two)."""
    from kmmlu_fast.data import dataset

    counts = Counter(question.subject for question in dataset.load_questions(data, "dev", None))
    return min(5, *counts.values())


def asked_of(config: PartConfig, shots: int, tokenizer: Any) -> tuple[list[Any], Any]:
    """The questions of a short pass and their method: the same draw for every part, in the files' order."""
    from bench.throughput import ThroughputConfig, prepare

    values = {"dataset": config.data, "all": True, "num_fewshot": shots, "model": config.model_path}
    asked, method = prepare(ThroughputConfig.model_validate(values), tokenizer)
    if config.some < len(asked):
        asked = [asked[i] for i in sorted(random.Random(0).sample(range(len(asked)), config.some))]
    return asked, method


def open_for_prompts(config: PartConfig, longest: int, **fields: Any) -> Any:
    """vLLM on the folder's model, random weights unless ``load_format`` says otherwise."""
    from bench.gpu_engine import open_engine
    from kmmlu_fast.engines.vllm.engine import EngineSettings

    length = -(-(longest + 32) // 256) * 256
    settings = {"load_format": "dummy", "generates": False, **fields}
    return open_engine(EngineSettings(model=config.model_path, max_model_len=length, **settings))


def time_passes(
    config: PartConfig, shot_counts: list[int], adapters: list[Any], **fields: Any
) -> dict[str, Any]:
    """Seconds to start, and of a pass for each number of exemplars and each of base and adapters."""
    from bench.throughput import Memory
    from kmmlu_fast.evaluation import runner
    from kmmlu_fast.models import model as models

    tokenizer = models.load_tokenizer(models.resolve_model(config.model_path))
    sets = [(shots, *asked_of(config, shots, tokenizer)) for shots in shot_counts]
    engine = open_for_prompts(
        config, max(len(item.token_ids[0]) for _, asked, _ in sets for item in asked), **fields
    )
    rows = []
    for shots, asked, method in sets:
        for adapter in (None, *adapters):
            runner.ask_questions(engine, asked[:8], method, adapter, Memory(), "warm-up")
            engine._llm.reset_prefix_cache()
            speed = runner.ask_questions(engine, asked, method, adapter, Memory(), f"{shots}-shot")
            rows.append({"shots": shots, "adapter": adapter.name if adapter else None, **speed})
    first = {name: rows[0][name] for name in ("seconds", "questions", "questions_per_sec")}
    engine.close()
    return {"start_sec": round(engine.start_sec, 1), "passes": rows, **first}


def time_short_passes(config: PartConfig) -> dict[str, Any]:
    """Zero-shot, then five-shot in the same engine."""
    return time_passes(config, [0, most_shots(config.data)], [])


def time_adapter(config: PartConfig) -> dict[str, Any]:
    """An adapter written into the base's engine, and taken out again; then served beside the base."""
    from bench.adapters import write_adapter
    from bench.flops import shape_of
    from bench.throughput import Memory
    from kmmlu_fast.evaluation import runner
    from kmmlu_fast.models import model as models
    from kmmlu_fast.models.adapters import load_adapters

    model = models.resolve_model(config.model_path)
    folder = config.folder / "adapter"
    if not folder.exists():
        write_adapter(folder, shape_of(model.config()), _RANK, 1, model.path)
    [adapter] = load_adapters([str(folder)], model, "serve")
    asked, method = asked_of(config, 0, models.load_tokenizer(model))
    engine = open_for_prompts(config, max(len(item.token_ids[0]) for item in asked), load_format="auto")
    seconds = {}
    for name, wanted in (("swap_in_sec", adapter), ("swap_out_sec", None)):
        began = time.monotonic()
        engine.swap(wanted)
        seconds[name] = round(time.monotonic() - began, 2)
        if wanted:
            speed = runner.ask_questions(engine, asked, method, None, Memory(), "swapped")
    engine.close()
    served = time_passes(config, [0], [adapter], load_format="auto", max_lora_rank=_RANK, num_adapters=1)
    return {**served, "swapped": {**seconds, "pass": speed}}


def compare_letters(config: PartConfig) -> dict[str, Any]:
    """The same questions' letters by vLLM and by plain transformers, on the same weights."""
    if config.by != "both":
        return {"letters": _letters_by(config)}
    by_vllm, by_transformers = (
        run_for_json(["bench.gpu_parts", *config.part_words(), "--by", by])["letters"]
        for by in ("vllm", "transformers")
    )
    return compare(by_vllm, by_transformers)


def _letters_by(config: PartConfig) -> list[list[float]]:
    from bench.throughput import Memory
    from kmmlu_fast.evaluation import runner
    from kmmlu_fast.models import model as models

    model = models.resolve_model(config.model_path)
    few = config.model_copy(update={"some": min(COMPARED, config.some)})
    asked, method = asked_of(few, 0, models.load_tokenizer(model))
    if config.by == "transformers":
        return _by_transformers(model.path, asked, list(method.letter_ids))
    engine = open_for_prompts(config, max(len(item.token_ids[0]) for item in asked), load_format="auto")
    memory = Memory()
    runner.ask_questions(engine, asked, method, None, memory, "letters")
    engine.close()
    found = {row.question_id: [getattr(row, column) for column in LOGPROB_COLUMNS] for row in memory.rows}
    return [found[item.question.question_id] for item in asked]


def _by_transformers(path: str, asked: list[Any], letter_ids: list[int]) -> list[list[float]]:
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


def time_reasoning(config: PartConfig) -> dict[str, Any]:
    """Generation of 256 tokens a question (a few without a card): greedy, random weights hardly ever stop."""
    from bench.throughput import Memory
    from kmmlu_fast.data import dataset
    from kmmlu_fast.data.subjects import SUBJECTS
    from kmmlu_fast.evaluation import runner
    from kmmlu_fast.models import model as models
    from kmmlu_fast.prompting import tokens
    from kmmlu_fast.prompting.methods import GenerateUntil

    questions = dataset.load_questions(config.data, "test", None)
    chosen = random.Random(0).sample(questions, min(config.cot_questions, len(questions)))
    tokens_each = COT_TOKENS if has_gpu() else _FEW_TOKENS
    method = GenerateUntil("lm-eval", max_tokens=tokens_each)
    tokenizer = models.load_tokenizer(models.resolve_model(config.model_path))
    asked, _ = tokens.render_and_tokenise(chosen, {name: [] for name in SUBJECTS}, method, tokenizer)
    engine = open_for_prompts(
        config, max(len(item.token_ids[0]) for item in asked) + tokens_each, generates=True
    )
    runner.ask_questions(engine, asked[:4], method, None, Memory(), "warm-up")
    speed = runner.ask_questions(engine, asked, method, None, Memory(), "cot")
    about = {
        "max_tokens": tokens_each,
        "start_sec": round(engine.start_sec, 1),
        "cache_tokens": engine._cache_tokens,
    }
    engine.close()
    return {**speed, **about}


def provoke_out_of_memory(config: PartConfig) -> dict[str, Any]:
    """Ask for a cache that no card holds: the engine's process dies, and the user's line says what helps."""
    if not has_gpu():  # the host's memory is not a card's: asking for too much of it takes the machine down
        raise EngineError("out of memory is provoked on a GPU only")
    began = time.monotonic()
    try:
        open_for_prompts(config, 900, extra=(("num_gpu_blocks_override", _TOO_MANY_BLOCKS),)).close()
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


def evaluate_served_and_merged(config: PartConfig) -> dict[str, Any]:
    """An adapter evaluated by the product's own command, served and merged: seconds, and letters compared."""
    from bench.adapters import write_adapter
    from bench.flops import shape_of
    from bench.gpu_engine import close_shared_engine
    from kmmlu_fast.models import model as models

    model = models.resolve_model(config.model_path)
    folder = config.folder / "adapter"
    if not folder.exists():
        write_adapter(folder, shape_of(model.config()), _RANK, 1, model.path)
    close_shared_engine()
    seconds, outputs = {}, []
    for mode in ("serve", "merge"):
        output = config.folder / f"runs-{mode}"
        outputs.append(output)
        shutil.rmtree(output, ignore_errors=True)
        if mode == "merge":  # the base is answered once
            for run in base_runs(outputs[0]):
                shutil.copytree(run, output / run.name)
        words = [
            "--model",
            model.path,
            "--dataset",
            config.data,
            "--adapter",
            f"lora={folder}",
            "--limit",
            "4",
        ]
        words += ["--adapter-mode", mode, "--output-dir", str(output)]
        began = time.monotonic()
        run_command(["kmmlu_fast.eval", "--no-warm-engine", *words])
        seconds[f"{mode}_sec"] = round(time.monotonic() - began, 1)
    served, merged = map(letters_of_run, outputs)
    return {**seconds, "served_merged": compare(served, merged)}


def base_runs(runs: Path) -> list[Path]:
    """The complete runs in a folder that are not the adapter's."""
    return [path.parent for path in runs.glob("*/metrics.json") if "-lora-" not in path.parent.name]


def letters_of_run(runs: Path) -> list[list[float]]:
    """The adapter's log-probabilities in a folder of runs, in the dataset's order."""
    from kmmlu_fast.runs.store import load_run_directory

    [path] = [folder for folder in runs.glob("*-lora-*") if (folder / "metrics.json").exists()]
    frame = load_run_directory(path).predictions
    assert frame is not None  # a complete run has them
    return [list(row) for row in frame.select(LOGPROB_COLUMNS).iter_rows()]


def time_full_pass(config: PartConfig, *flags: str) -> dict[str, Any]:
    """``bench.throughput`` over all questions, once."""
    words = ["--model", config.model_path, "--dataset", config.data, "--load-format", "dummy", "--all"]
    words += ["--repeats", "1", *flags]
    if not is_in_place():
        return run_for_json(["bench.throughput", *words])
    from bench import throughput
    from bench.gpu_engine import open_engine

    small = ["--norms", "eager", "--largest-matmul", "512"]
    chosen = parse_config(throughput.ThroughputConfig, [*words, *small], "python -m bench.throughput")
    return throughput.measure(chosen, open_engine)


def time_training_steps(config: PartConfig) -> dict[str, Any]:
    """``bench.training``: QLoRA steps by length and batch."""
    about = ["bench.training", "--model", config.model_path, "--dataset", config.data]
    if is_in_place():  # one way: each patches the libraries for itself
        small = ["--lengths", "64", "--batches", "1,4", "--repeats", "1", "--warm-ups", "1"]
        return run_for_json([*about, "--way", "train", *small])
    return run_for_json([*about, "--lengths", "512,1024", "--batches", "4,16", "--repeats", "2"])


def part_functions() -> dict[str, Callable[[PartConfig], dict[str, Any]]]:
    """Every part by name."""
    from bench import gpu_first_parts as first

    return {
        "files": first.write_files,
        "weights": first.write_weights,
        "ceilings": first.measure_ceilings,
        "doctor": first.ask_doctor,
        "label loss": first.check_label_loss,
        "train 500 x 3": first.train_adapter,
        "kill and resume": first.kill_and_resume,
        "transformers": first.compare_batches,
        "letters": compare_letters,
        "eager 0+5-shot": time_short_passes,
        "fp8": lambda config: time_passes(config, [0], [], quantization=fp8_name()),
        "LoRA": time_adapter,
        "cot bf16": time_reasoning,
        "out of memory": provoke_out_of_memory,
        "served and merged": evaluate_served_and_merged,
        "graphs": lambda config: time_passes(config, [0], [], generates=True),
        "zero-shot bf16": time_full_pass,
        "zero-shot fp8": lambda config: time_full_pass(config, "--quantization", fp8_name()),
        "five-shot bf16": lambda config: time_full_pass(
            config, "--num-fewshot", str(most_shots(config.data))
        ),
        "steps": time_training_steps,
    }


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        die_with_parent()  # do not outlive a visit that is killed
        config = parse_config(PartConfig, argv, "python -m bench.gpu_parts")
        print(json.dumps(part_functions()[config.part](config), default=str))
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
