"""The whole set for one GPU in one command, with random weights in the A.X-4.0-Light shape: no hub and no real weights needed.

    python -m bench.gpu                            everything, within 10 minutes (after: bash scripts/setup.sh gpu)
    python -m bench.gpu --shape tiny --questions 45 --minutes 9      tries the scripts out on any machine

In: the dataset (all 35,030 test questions; a smaller one is repeated with its rows made distinct). Out: seconds of the zero-shot pass in
bf16 and fp8, of the five-shot pass, of chain of thought with 256 tokens, of training 500 rows three times, and QLoRA steps; each beside
its target. Every part is a process of its own with a time limit; what did not run is "not measured", never estimated.
Knows nothing of accuracy: random weights have none.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, matmul_rate, note, run_child, table
from bench.overhead import QUESTIONS, enlarge
from bench.shape_model import write_random_weights, write_shape
from bench.throughput import Memory
from kmmlu_fast.asking import tokens
from kmmlu_fast.asking.methods import GenerateUntil
from kmmlu_fast.asking.prompts import render
from kmmlu_fast.core.console import run_main
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.flags import parse
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.evaluation import runner
from kmmlu_fast.models import adapters
from kmmlu_fast.models import model as models

COT_TOKENS = 256
TARGET_SEC = {"zero-shot bf16": 120.0, "zero-shot fp8": 75.0, "train 500 x 3": 120.0}  # issue targets on one H100
TARGET_FEWSHOT = 1.3  # times the zero-shot pass
NOT_MEASURED = "not measured"
# Parts in order of worth, each with the most seconds it may take.
LIMIT_SEC = {
    "matmul": 60, "zero-shot bf16": 240, "five-shot bf16": 240, "train 500 x 3": 300, "zero-shot fp8": 200, "cot bf16": 200, "steps": 200,
}  # fmt: skip


class GpuConfig(BenchConfig):
    """python -m bench.gpu: the whole set on one GPU, random weights, within --minutes."""

    shape: Literal["ax4-light", "tiny"] = Field("ax4-light", description="the model's shape")
    questions: PositiveInt = Field(QUESTIONS, description="questions of a pass")
    cot_questions: PositiveInt = Field(2048, description="questions of the chain-of-thought part, at most")
    train_rows: PositiveInt = Field(500, description="rows that are trained on three times")
    minutes: float = Field(9.5, gt=0, description="stop starting parts after this")
    parts: list[str] = Field(list(LIMIT_SEC), description="which parts, comma-separated")
    part: Literal["matmul", "cot", "weights"] | None = Field(None, description="internal: run this part in this process, print JSON only")
    folder: Path | None = Field(None, description="internal: where model and data lie")


def set_up(config: GpuConfig, folder: Path) -> None:
    """Data and model directory: ``data``, ``model``, ``train.jsonl``."""
    from kmmlu_fast.data import rows as sft

    (folder / "data").mkdir()
    enlarge(config.dataset_name(), config.questions, folder / "data", distinct=True)
    questions = dataset.load_questions(str(folder / "data"), "test", None)
    draw = random.Random(0)
    shown = draw.sample(questions, min(8000, len(questions)))
    write_shape(folder / "model", config.shape, [f"{render(q, [], 'lm-eval').text} {q.answer}" for q in shown])
    rows = []
    for number, question in enumerate(draw.choices(questions, k=config.train_rows)):
        text = question.question.strip()
        source = replace(question, question_id=f"{question.subject}/train/{number}", split="train", row=number, question=text)
        rows.append(sft.SftRow(source, "uniform"))
    sft.write_rows(folder / "train.jsonl", [row for row in rows if _writable(row)])


def _writable(row: Any) -> bool:
    from kmmlu_fast.data import rows as sft

    try:
        sft.to_record(row)
    except KmmluError:  # a question whose own lines look like options
        return False
    return True


def run_parts(config: GpuConfig, folder: Path) -> dict[str, Any]:
    """Every part that fits into the time; failures and time-outs are said, and the others still run."""
    began, model, data = time.monotonic(), str(folder / "model"), str(folder / "data")
    inference = ["bench.throughput", "--model", model, "--dataset", data, "--load-format", "dummy", "--all", "--repeats", "1"]
    own = ["bench.gpu", "--folder", str(folder), "--cot-questions", str(config.cot_questions)]
    makers: dict[str, Callable[[float], dict[str, Any]]] = {
        "matmul": lambda limit: run_child([*own, "--part", "matmul"], timeout_sec=limit),
        "zero-shot bf16": lambda limit: run_child(inference, timeout_sec=limit),
        "zero-shot fp8": lambda limit: run_child([*inference, "--quantization", "fp8"], timeout_sec=limit),
        "five-shot bf16": lambda limit: run_child([*inference, "--num-fewshot", "5"], timeout_sec=limit),
        "cot bf16": lambda limit: run_child([*own, "--part", "cot"], timeout_sec=limit),
        "train 500 x 3": lambda limit: train(folder, limit),
        "steps": lambda limit: run_child(
            ["bench.training", "--model", model, "--dataset", data, "--lengths", "512,1024", "--batches", "4,16", "--repeats", "2"],
            timeout_sec=limit,
        ),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for part in (part for part in LIMIT_SEC if part in config.parts):
        left = config.minutes * 60 - (time.monotonic() - began)
        if left < 30:
            found[part] = {NOT_MEASURED: "no time left"}
            continue
        note(f"{part} ({left:.0f} s left)")
        try:
            found[part] = makers[part](min(left, LIMIT_SEC[part]))
        except subprocess.TimeoutExpired as error:
            found[part] = {NOT_MEASURED: f"not done after {error.timeout:.0f} s"}
        except KmmluError as error:
            found[part] = {NOT_MEASURED: str(error)}
        note(f"{part}: {json.dumps(found[part])[:300]}")
    return found


def train(folder: Path, limit_sec: float) -> dict[str, Any]:
    """The product's own ``train`` on the rows, three epochs; random weights are written first, and counted apart."""
    began = time.monotonic()
    if not (folder / "model" / "model.safetensors").exists() and not list((folder / "model").glob("*.safetensors")):
        run_child(["bench.gpu", "--folder", str(folder), "--part", "weights"], timeout_sec=limit_sec)
    weights_sec = time.monotonic() - began
    out = folder / "lora"
    words = [
        "kmmlu_fast.train", "--data", str(folder / "train.jsonl"), "--model", str(folder / "model"), "--output-dir", str(out),
        "--dataset", "sample", "--allow-leakage", "--num-train-epochs", "3", "--held-out", "0", "--keep", "last", "--save-every", "1000000",
    ]  # fmt: skip
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", *words], check=False, stdout=sys.stderr, timeout=limit_sec - weights_sec)
    card_path = out / adapters.ADAPTER_CARD
    if not card_path.exists():
        return {NOT_MEASURED: "training failed; its own message is above"}
    card = json.loads(card_path.read_text(encoding="utf-8"))
    return {"total_sec": round(time.monotonic() - began, 1), "weights_sec": round(weights_sec, 1), "card": card}


def cot(config: GpuConfig, folder: Path) -> dict[str, Any]:
    """Generation of 256 tokens a question: greedy, random weights hardly ever stop."""
    from kmmlu_fast.engines.vllm import EngineSettings, VllmEngine

    model = models.resolve_model(str(folder / "model"))
    tokenizer = models.load_tokenizer(model)
    questions = dataset.load_questions(str(folder / "data"), "test", None)
    chosen = random.Random(0).sample(questions, min(config.cot_questions, len(questions)))
    method = GenerateUntil("lm-eval", COT_TOKENS)
    asked, _ = tokens.prepare(chosen, {name: [] for name in SUBJECTS}, method, tokenizer)
    length = max(len(item.token_ids[0]) for item in asked) + COT_TOKENS + 32
    engine = VllmEngine(EngineSettings(model.path, dtype="bfloat16", load_format="dummy", max_model_len=-(-length // 256) * 256))
    runner.run(engine, asked[:4], method, None, Memory(), "warm-up")
    speed = runner.run(engine, asked, method, None, Memory(), "cot")
    stats = engine.stats()
    engine.close()
    return {**speed, "max_tokens": COT_TOKENS, "start_sec": stats["start_sec"]}


def judge(found: dict[str, Any], full: bool) -> list[dict[str, Any]]:
    """A row a part: seconds, and for the ``full`` set the target and whether it was reached; parts without one show their rate."""
    rows = []
    zero = _seconds(found.get("zero-shot bf16"))
    for part, result in found.items():
        sec = _seconds(result)
        target = (TARGET_SEC.get(part) or (TARGET_FEWSHOT * zero if part == "five-shot bf16" and zero else None)) if full else None
        why = result.get(NOT_MEASURED)
        rows.append({
            "part": part, "seconds": NOT_MEASURED if why else sec, "tflop_per_sec": _tflop_per_sec(result),
            "target_sec": round(target, 1) if target else None, "reached": None if sec is None or target is None else sec < target,
            "questions_per_sec": result.get("questions_per_sec"), "output_tokens_per_sec": result.get("output_tokens_per_sec"),
            "share_of_matmul_rate": result.get("share_of_matmul_rate"), "why": why,
        })  # fmt: skip
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
        config = parse(GpuConfig, argv, "python -m bench.gpu")
        if config.part and config.folder:
            result: dict[str, Any] = {}
            if config.part == "weights":
                write_random_weights(config.folder / "model")
            else:
                result = matmul_rate() if config.part == "matmul" else cot(config, config.folder)
            print(json.dumps(result))
            return 0
        with tempfile.TemporaryDirectory() as name:
            note("data and tokenizer")
            set_up(config, Path(name))
            found = run_parts(config, Path(name))
        rows = judge(found, config.shape == "ax4-light" and config.questions == QUESTIONS and config.train_rows == 500)
        finish("gpu", config, argv, {"shape": config.shape, "rows": rows, "parts": found}, [table(f"One GPU, {config.shape} shape", rows)])
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
