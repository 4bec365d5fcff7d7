"""The whole set for one GPU in one command, with random weights in the A.X-4.0-Light shape: no hub and no
real weights needed.

    python -m bench.gpu                            everything, within 10 minutes (after: bash scripts/setup.sh gpu)
    python -m bench.gpu --shape tiny --questions 45 --some 45 --minutes 9      tries the scripts out on any machine

In: the dataset (all 35,030 test questions; a smaller one is repeated with its rows made distinct). Out: the
parts of PARTS, the cheapest first: starts and passes of 5,000 questions with and without CUDA graphs, in fp8,
five-shot in the same engine, with LoRA; an engine that runs out of memory; letters against plain
transformers; an adapter's life (trained, killed, resumed, served, merged); chain of thought; and the full
passes and trainings beside their targets. Every part is a process of its own with a time limit; what did not
run is "not measured", never estimated. Knows nothing of accuracy: random weights have none.
"""  # noqa: E501

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, run_child, table
from bench.gpu_parts import COMPARED, compare
from bench.overhead import QUESTIONS, enlarge
from bench.shape_model import write_shape
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS
from kmmlu_fast.data import dataset
from kmmlu_fast.machine.device import first_gpu
from kmmlu_fast.machine.memory_fit import FP8
from kmmlu_fast.models import adapters
from kmmlu_fast.prompting.prompts import render_prompt
from kmmlu_fast.runs.store import load_run_directory

TARGET_SEC = {
    "zero-shot bf16": 120.0,
    "zero-shot fp8": 75.0,
    "train 500 x 3": 120.0,
}  # issue targets on one H100
TARGET_FEWSHOT = 1.3  # times the zero-shot pass
NOT_MEASURED = "not measured"
# Parts, cheapest first, each with the most seconds it may take.
LIMIT_SEC = {
    "matmul": 60,
    "eager 0+5-shot": 150,
    "graphs": 180,
    "fp8": 150,
    "LoRA": 150,
    "out of memory": 120,
    "letters": 150,
    "adapter's life": 240,
    "cot bf16": 200,
    "zero-shot bf16": 240,
    "train 500 x 3": 300,
    "zero-shot fp8": 200,
    "five-shot bf16": 240,
    "steps": 200,
}


class GpuConfig(BenchConfig):
    """python -m bench.gpu: the whole set on one GPU, random weights, within --minutes."""

    shape: Literal["ax4-light", "tiny"] = Field("ax4-light", description="the model's shape")
    questions: PositiveInt = Field(QUESTIONS, description="questions of a full pass")
    some: PositiveInt = Field(5000, description="questions of the parts that are not a full pass")
    cot_questions: PositiveInt = Field(2048, description="questions of the chain-of-thought part, at most")
    train_rows: PositiveInt = Field(500, description="rows that are trained on three times")
    minutes: float = Field(9.5, gt=0, description="stop starting parts after this")
    parts: list[str] = Field(list(LIMIT_SEC), description="which parts, comma-separated")


def set_up(config: GpuConfig, folder: Path) -> None:
    """Data and model directory: ``data``, ``model``, ``train.jsonl``."""
    from kmmlu_fast.data import alpaca as sft

    (folder / "data").mkdir()
    enlarge(config.dataset_name(), config.questions, folder / "data", distinct=True)
    questions = dataset.load_questions(str(folder / "data"), "test", None)
    draw = random.Random(0)
    shown = draw.sample(questions, min(8000, len(questions)))
    write_shape(
        folder / "model", config.shape, [f"{render_prompt(q, [], 'lm-eval').text} {q.answer}" for q in shown]
    )
    rows = []
    for number, question in enumerate(draw.choices(questions, k=config.train_rows)):
        text = question.question.strip()
        source = replace(
            question,
            question_id=f"{question.subject}/train/{number}",
            split="train",
            row=number,
            question=text,
        )
        rows.append(sft.SftRow(question=source, strategy="uniform"))
    sft.write_sft_rows(folder / "train.jsonl", [row for row in rows if _writable(row)])


def _writable(row: Any) -> bool:
    from kmmlu_fast.data import alpaca as sft

    try:
        sft.sft_row_to_record(row)
    except KmmluError:  # a question whose own lines look like options
        return False
    return True


def run_parts(config: GpuConfig, folder: Path) -> dict[str, Any]:
    """Every part that fits into the time; failures and time-outs are said, and the others still run."""
    began, model, data = time.monotonic(), str(folder / "model"), str(folder / "data")
    full = [
        "bench.throughput",
        "--model",
        model,
        "--dataset",
        data,
        "--load-format",
        "dummy",
        "--all",
        "--repeats",
        "1",
    ]
    own = ["bench.gpu_parts", "--folder", str(folder), "--part"]
    some = [*own, "passes", "--count", str(config.some)]
    fp8, shots = ["--quantization", fp8_name()], most_shots(data)

    def child(words: list[str]) -> Callable[[float], dict[str, Any]]:
        return lambda limit: run_child(words, timeout_sec=limit)

    makers: dict[str, Callable[[float], dict[str, Any]]] = {
        "matmul": child([*own, "matmul"]),
        "eager 0+5-shot": child([*some, "--shots", f"0,{shots}"]),
        "graphs": child([*some, "--graphs"]),
        "fp8": child([*some, *fp8]),
        "LoRA": child([*some, "--lora"]),
        "out of memory": child([*own, "memory"]),
        "letters": lambda limit: letters(folder, limit),
        "adapter's life": lambda limit: life(folder, limit),
        "cot bf16": child([*own, "cot", "--count", str(config.cot_questions)]),
        "zero-shot bf16": child(full),
        "zero-shot fp8": child([*full, *fp8]),
        "five-shot bf16": child([*full, "--num-fewshot", str(shots)]),
        "train 500 x 3": lambda limit: train(folder, limit),
        "steps": child(
            [
                "bench.training",
                "--model",
                model,
                "--dataset",
                data,
                "--lengths",
                "512,1024",
                "--batches",
                "4,16",
                "--repeats",
                "2",
            ]
        ),
    }
    found: dict[str, Any] = {}
    for part in (part for part in LIMIT_SEC if part in config.parts):
        left = config.minutes * 60 - (time.monotonic() - began)
        if left < 30:
            found[part] = {NOT_MEASURED: "no time left"}
            continue
        note(f"{part} ({left:.0f} s left)")
        part_began = time.monotonic()
        try:
            found[part] = makers[part](min(left, LIMIT_SEC[part]))
        except subprocess.TimeoutExpired as error:
            found[part] = {NOT_MEASURED: f"not done after {error.timeout:.0f} s"}
        except KmmluError as error:
            found[part] = {NOT_MEASURED: str(error)}
        except Exception as error:  # a fault of one part must not cost the minutes of the others
            found[part] = {NOT_MEASURED: f"{type(error).__name__}: {error}"}
        found[part]["part_sec"] = round(time.monotonic() - part_began, 1)
        note(f"{part}: {json.dumps(found[part])[:300]}")
    return found


def most_shots(data: str) -> int:
    """Five exemplars, or as many as every subject of the dataset has (the packaged sample: two)."""
    counts = Counter(question.subject for question in dataset.load_questions(data, "dev", None))
    return min(5, *counts.values())


def fp8_name() -> str:
    """The fp8 that this card computes: from Ada on with weights and activations in fp8, before
    with the weights alone.
    """
    card = first_gpu()
    return "fp8_per_channel" if card is None or card.capability >= FP8 else "fp8_per_tensor"


def weights(folder: Path, limit_sec: float) -> float:
    """Random weights on disk, once; the seconds it took now."""
    began = time.monotonic()
    if not list((folder / "model").glob("*.safetensors")):
        run_child(["bench.gpu_parts", "--folder", str(folder), "--part", "weights"], timeout_sec=limit_sec)
    return time.monotonic() - began


def letters(folder: Path, limit_sec: float) -> dict[str, Any]:
    """The same questions' letters by vLLM and by plain transformers, on the same weights."""
    left = limit_sec - weights(folder, limit_sec)
    words = [
        "bench.gpu_parts",
        "--folder",
        str(folder),
        "--part",
        "letters",
        "--count",
        str(COMPARED),
        "--by",
    ]
    began = time.monotonic()
    one = run_child([*words, "vllm"], timeout_sec=left)
    two = run_child([*words, "transformers"], timeout_sec=max(left - (time.monotonic() - began), 1))
    return compare(one["letters"], two["letters"])


def life(folder: Path, limit_sec: float) -> dict[str, Any]:
    """An adapter's life by the product's own commands: training killed after a checkpoint,
    resumed; evaluated served, then merged.
    """
    until = time.monotonic() + limit_sec
    weights(folder, limit_sec)
    out, data, model = folder / "killed", str(folder / "data"), str(folder / "model")
    words = [*_training(folder, out), "--max-steps", "12", "--save-every", "2", "--effective-batch", "8"]
    found: dict[str, Any] = {}
    first = subprocess.Popen([sys.executable, "-m", *words], stdout=sys.stderr, start_new_session=True)
    try:
        while not list(out.glob("checkpoints/checkpoint-*/complete.json")):
            if first.poll() is not None or time.monotonic() > until:
                return {NOT_MEASURED: "no checkpoint was written; training's own message is above"}
            time.sleep(0.2)
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    found["killed_after"] = max(
        int(path.parent.name.rsplit("-", 1)[-1]) for path in out.glob("checkpoints/*/complete.json")
    )
    steps = {
        "resumed_sec": [*words, "--resume"],
        "served_sec": _evaluation(model, data, out, "serve"),
        "merged_sec": _evaluation(model, data, out, "merge"),
    }
    for name, step in steps.items():
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *step], stdout=sys.stderr, check=False, timeout=max(until - began, 1)
        )
        if done.returncode:
            return {
                **found,
                NOT_MEASURED: f"{name}: ended with exit code {done.returncode}; its own message is above",
            }
        found[name] = round(time.monotonic() - began, 1)
    card = json.loads((out / adapters.ADAPTER_CARD).read_text(encoding="utf-8"))
    one, two = (_letters_of(out.parent / f"runs-{mode}") for mode in ("serve", "merge"))
    return {
        **found,
        "steps": card["metrics"]["steps"],
        "resumed_from": card["metrics"]["resumed_from"],
        "served_merged": compare(one, two),
    }


def _training(folder: Path, out: Path) -> list[str]:
    return [
        "kmmlu_fast.train",
        "--data",
        str(folder / "train.jsonl"),
        "--model",
        str(folder / "model"),
        "--output-dir",
        str(out),
        "--dataset",
        "sample",
        "--allow-leakage",
        "--num-train-epochs",
        "3",
        "--held-out",
        "0",
        "--keep",
        "last",
    ]


def _evaluation(model: str, data: str, adapter: Path, mode: str) -> list[str]:
    output = str(adapter.parent / f"runs-{mode}")
    words = [
        "kmmlu_fast.eval",
        "--model",
        model,
        "--dataset",
        data,
        "--adapter",
        f"lora={adapter}",
        "--adapter-mode",
        mode,
    ]
    return [*words, "--limit", "4", "--output-dir", output]


def _letters_of(runs: Path) -> list[list[float]]:
    """The adapter's log-probabilities in a folder of runs, in the dataset's order."""
    [path] = [folder for folder in runs.glob("*-lora-*") if (folder / "metrics.json").exists()]
    frame = load_run_directory(path).predictions
    assert frame is not None  # a complete run has them
    return [list(row) for row in frame.select(LOGPROB_COLUMNS).iter_rows()]


def train(folder: Path, limit_sec: float) -> dict[str, Any]:
    """The product's own ``train`` on the rows, three epochs; random weights are written first,
    and counted apart.
    """
    weights_sec = weights(folder, limit_sec)
    out = folder / "lora"
    began = time.monotonic()
    words = [*_training(folder, out), "--save-every", "1000000"]
    subprocess.run(
        [sys.executable, "-m", *words], check=False, stdout=sys.stderr, timeout=limit_sec - weights_sec
    )
    card_path = out / adapters.ADAPTER_CARD
    if not card_path.exists():
        return {NOT_MEASURED: "training failed; its own message is above"}
    card = json.loads(card_path.read_text(encoding="utf-8"))
    return {
        "total_sec": round(time.monotonic() - began, 1),
        "weights_sec": round(weights_sec, 1),
        "card": card,
    }


def judge(found: dict[str, Any], full: bool) -> list[dict[str, Any]]:
    """A row a part: seconds, and for the ``full`` set the target and whether it was reached;
    parts without one show their rate.
    """
    rows = []
    zero = _seconds(found.get("zero-shot bf16"))
    for part, result in found.items():
        sec = _seconds(result)
        target = (
            (TARGET_SEC.get(part) or (TARGET_FEWSHOT * zero if part == "five-shot bf16" and zero else None))
            if full
            else None
        )
        why = result.get(NOT_MEASURED)
        rows.append(
            {
                "part": part,
                "seconds": NOT_MEASURED if why else sec,
                "tflop_per_sec": _tflop_per_sec(result),
                "target_sec": round(target, 1) if target else None,
                "reached": None if sec is None or target is None else sec < target,
                "questions_per_sec": result.get("questions_per_sec"),
                "output_tokens_per_sec": result.get("output_tokens_per_sec"),
                "share_of_matmul_rate": result.get("share_of_matmul_rate"),
                "start_sec": result.get("start_sec"),
                "why": why,
            }
        )
    return rows


def _tflop_per_sec(result: dict[str, Any]) -> float | None:
    rate = result.get("gflop_per_sec")
    return round((rate["median"] if isinstance(rate, dict) else rate) / 1000, 2) if rate else None


def _seconds(result: dict[str, Any] | None) -> float | None:
    """A pass's seconds, or training's own without loading."""
    if not result or NOT_MEASURED in result:
        return None
    if "card" in result:
        return round(float(result["card"]["metrics"]["train_sec"]), 1)
    seconds = result.get("seconds")
    return seconds["median"] if isinstance(seconds, dict) else seconds


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(GpuConfig, argv, "python -m bench.gpu")
        with tempfile.TemporaryDirectory() as name:
            note("data and tokenizer")
            set_up(config, Path(name))
            found = run_parts(config, Path(name))
        rows = judge(
            found, config.shape == "ax4-light" and config.questions == QUESTIONS and config.train_rows == 500
        )
        finish(
            "gpu",
            config,
            argv,
            {"shape": config.shape, "rows": rows, "parts": found},
            [table(f"One GPU, {config.shape} shape", rows)],
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
