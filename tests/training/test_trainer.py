"""Training for real: Unsloth in 4 bit on a tiny Qwen2-shaped model, kill -9 and --resume, and the adapter in
PEFT, Unsloth and vLLM.

One training a module; the questions are invented and can only be answered by having seen them.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from kmmlu_fast.core import files
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.models.adapters import read_training_log
from kmmlu_fast.runs import store

pytestmark = [pytest.mark.engine, pytest.mark.alone]

WORDS = [
    "사과",
    "바다",
    "구름",
    "연필",
    "호수",
    "나무",
    "기차",
    "시계",
    "모래",
    "우산",
    "등대",
    "거울",
    "종이",
    "단추",
    "열쇠",
    "바람",
    "의자",
    "지도",
    "접시",
    "촛불",
    "다리",
    "그물",
    "나팔",
    "빗자루",
]
STEPS = 90  # 24 rows x 30 epochs in batches of 8
ENVIRONMENT = {
    **os.environ,
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}  # tiny products: threads only wait for each other


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, 24 questions as the train split of a dataset directory, and the same as training rows."""
    folder = tmp_path_factory.mktemp("train")
    tiny.make_tiny_model(folder / "model")
    (folder / "data").mkdir()
    draw = random.Random(0)
    with (folder / "data" / "Accounting-train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy"])
        for i, word in enumerate(WORDS):
            writer.writerow(
                [
                    f"{word} 문제",
                    i % 4 + 1,
                    *draw.sample(["하나", "둘", "셋", "넷", "다섯", "여섯"], 4),
                    "Accounting",
                    0.5,
                ]
            )
    questions = dataset.load_questions(str(folder), "train", find_subjects(["Accounting"]))
    sft.write_sft_rows(
        folder / "sft.jsonl", [sft.SftRow(question=question, strategy="uniform") for question in questions]
    )
    return folder


def command(work: Path, output: str, *more: str) -> list[str]:
    files = [
        "--data",
        str(work / "sft.jsonl"),
        "--model",
        str(work / "model"),
        "--output-dir",
        str(work / output),
        "--dataset",
        "sample",
    ]
    schedule = [
        "--learning-rate",
        "1e-2",
        "--num-train-epochs",
        "30",
        "--effective-batch",
        "8",
        "--micro-batch",
        "4",
        "--save-every",
        "10",
    ]
    unmeasured = ["--held-out", "0", "--keep", "last"]
    return [
        sys.executable,
        "-m",
        "kmmlu_fast.train",
        *files,
        "--prompt-style",
        "qa",
        *schedule,
        *unmeasured,
        *more,
    ]


def without_flags(arguments: list[str], *flags: str) -> list[str]:
    """The command line without these flags and their values."""
    kept = list(arguments)
    for flag in flags:
        del kept[kept.index(flag) : kept.index(flag) + 2]
    return kept


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=ENVIRONMENT, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    run(command(work, "lora"))
    return work / "lora"


def losses(folder: Path) -> list[float]:
    return [
        record["loss"] for record in read_training_log(folder / "train_log.jsonl") if record["kind"] == "step"
    ]


def test_loss_falls_weights_move_and_every_step_is_made(trained: Path) -> None:
    from safetensors.numpy import load_file

    curve = losses(trained)
    assert len(curve) == STEPS and curve[-1] < 0.25 * curve[0]
    weights = load_file(trained / "adapter_model.safetensors")
    moved = [float(abs(weight).max()) for name, weight in weights.items() if "lora_B" in name]
    assert len(moved) == 14 and min(moved) > 0  # 7 projections x 2 layers; B starts at zero


def test_the_directory_says_what_it_is(trained: Path) -> None:
    card = files.read_json(trained / "kmmlu_fast.json")
    assert card["prompt_style"] == "qa" and card["num_fewshot"] == 0 and len(card["template_digest"]) == 16
    metrics = card["metrics"]
    assert (
        metrics["steps"] == metrics["planned_steps"] == STEPS
        and metrics["rows_seen"] == 720
        and metrics["four_bit"] is True
    )
    assert card["memory"]["peak_bytes"] > 0 < card["memory"]["planned_bytes"]
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "kmmlu_fast.json",
        "loss.svg",
        "tokenizer.json",
        "tokenizer_config.json",
        "train_log.jsonl",
        "training.json",
    ]
    assert any("trained in 4 bit, but evaluated in 16 bit" in warning for warning in card["warnings"])
    assert (
        "<svg" in (trained / "loss.svg").read_text()
        and "(test digest" not in (trained / "README.md").read_text()
    )
    assert f"`{card['template_digest']}`" in (trained / "README.md").read_text()


def test_it_is_never_overwritten_and_a_second_resume_does_nothing(work: Path, trained: Path) -> None:
    before = (trained / "adapter_model.safetensors").stat().st_mtime_ns
    refused = subprocess.run(
        command(work, "lora"), capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )
    assert (
        refused.returncode == 2 and "holds a finished adapter, which is never overwritten" in refused.stderr
    )
    assert "nothing to resume" in run(command(work, "lora", "--resume")).stderr
    assert (trained / "adapter_model.safetensors").stat().st_mtime_ns == before


def test_kill_minus_nine_and_resume(work: Path, trained: Path) -> None:
    folder = work / "killed"
    process = subprocess.Popen(
        command(work, "killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while len(losses(folder)) < 33 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    reached = len(losses(folder))
    assert 33 <= reached < STEPS, "the kill came too late to prove anything"
    assert not (folder / "kmmlu_fast.json").exists()

    refused = subprocess.run(
        command(work, "killed"), capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )
    assert refused.returncode == 2 and "give --resume to continue it" in refused.stderr

    # with the remedies that the out-of-memory message names, which change no weight
    more = ["--micro-batch", "2", "--save-every", "15", "--gradient-checkpointing", "on"]
    done = run([*without_flags(command(work, "killed"), "--micro-batch", "--save-every"), "--resume", *more])
    assert "continued after checkpoint-" in done.stderr
    metrics = files.read_json(folder / "kmmlu_fast.json")["metrics"]
    assert metrics["steps"] == STEPS and metrics["resumed_from"] >= 30
    curve, uninterrupted = losses(folder), losses(trained)
    assert len(curve) == STEPS  # no step twice, none missing
    # The same rows in the same order from the same weights. Other micro-batches round otherwise, which grows
    # over the steps; that a pause with the same settings changes no bit is tested in ``test_pause``.
    first = metrics["resumed_from"]
    assert curve[:first] == pytest.approx(uninterrupted[:first])
    assert curve[first : first + 4] == pytest.approx(uninterrupted[first : first + 4], rel=0.05, abs=0.02)
    assert curve[-1] < 0.25 * curve[0]


def test_plain_peft_and_unsloth_load_it_and_a_diverging_run_stops(work: Path, trained: Path) -> None:
    script = """
import json, sys
from pathlib import Path
from unsloth import FastLanguageModel
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.training import encoding as train_data
from kmmlu_fast.training.measure import measure_held_out
work = Path(sys.argv[1])
def accuracy(model, tokenizer):
    rows = sft.read_sft_rows(work / "sft.jsonl")
    encoded = train_data.encode_question_rows(rows, tokenizer, "qa")
    return measure_held_out(model, encoded, encoded, train_data.letter_ids(rows, tokenizer, "qa"), 0).accuracy
model, tokenizer = FastLanguageModel.from_pretrained(str(work / "lora"), max_seq_length=512, load_in_4bit=True)
found = {"unsloth": accuracy(model, tokenizer)}
from peft import AutoPeftModelForCausalLM
plain = AutoPeftModelForCausalLM.from_pretrained(str(work / "lora"))
found["peft"] = accuracy(plain, tokenizer)
with plain.disable_adapter():
    found["base"] = accuracy(plain, tokenizer)
from kmmlu_fast.train import run_train_command
more = ["--output-dir", str(work / "diverged"), "--learning-rate", "1e30"]
found["diverged"] = run_train_command([*json.loads(sys.argv[2]), *more])
print("RESULT " + json.dumps(found))
"""  # noqa: E501
    arguments = command(work, "unused")[3:]
    done = run([sys.executable, "-c", script, str(work), json.dumps(arguments)])
    found = json.loads(done.stdout.split("RESULT ")[1])
    assert found["unsloth"] == found["peft"] == 1.0 and found["base"] < 0.5
    assert found["diverged"] == 2 and "diverged and was stopped" in done.stderr
    assert not (work / "diverged" / "adapter_model.safetensors").exists()


def test_vllm_with_the_adapter_answers_what_the_base_does_not(work: Path, trained: Path) -> None:
    run(
        [
            sys.executable,
            "-m",
            "kmmlu_fast.eval",
            "--model",
            str(work / "model"),
            "--adapter",
            str(trained),
            "--adapter-mode",
            "serve",
            "--dataset",
            str(work),
            "--split",
            "train",
            "--subjects",
            "Accounting",
            "--output-dir",
            str(work / "runs"),
            "--dtype",
            "float32",
        ]
    )
    runs: dict[bool, Any] = {}
    for path in (work / "runs").glob("*/config.json"):
        found = store.load_run_directory(path.parent)
        runs[bool(found.config["adapter"])] = found
    assert (
        runs[True].config["fingerprint_parts"]["prompt_style"] == "qa"
    )  # asked in the style that the adapter's card names
    assert runs[True].metrics.micro.accuracy == 1.0
    assert runs[False].metrics.micro.accuracy < 0.5


def test_a_mixture_of_everybodys_rows_trains_and_the_adapter_is_evaluated(work: Path) -> None:
    """Chats of three turns, half of an Alpaca file, a parquet: what is learnt is shown, the loss of held-out
    rows is measured beside the letters of the dataset's train questions, and the adapter answers an exam."""
    import polars as pl

    from kmmlu_fast.data.training_rows import read_training_rows
    from kmmlu_fast.models.model import load_tokenizer, resolve_model
    from kmmlu_fast.prompting.chat_template import BUILT_IN
    from kmmlu_fast.training.conversations import decode_trained_runs, encode_conversations

    turns = ("시작합시다.", "좋아요, {}.", "다음은?", "{} 다음은 {}.", "끝입니까?", "네, {}.")
    roles = ("user", "assistant") * 3
    chats = [
        {"messages": [{"role": r, "content": t.format(w, w)} for r, t in zip(roles, turns, strict=True)]}
        for w in WORDS[:20]
    ]
    alpaca = [{"instruction": f"{word}을(를) 쓰시오.", "input": "", "output": word} for word in WORDS[:20]]
    parts = {"chat": work / "chat.jsonl", "alpaca": work / "alpaca.jsonl", "table": work / "table.parquet"}
    for name, rows in (("chat", chats), ("alpaca", alpaca)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        parts[name].write_text("\n".join(lines), encoding="utf-8")
    pl.DataFrame({"prompt": [f"{w}?" for w in WORDS], "completion": WORDS}).write_parquet(parts["table"])
    data = [str(parts["chat"]), f"{parts['alpaca']}:0.5", str(parts["table"])]
    arguments = command(work, "mixed", "--max-steps", "3", "--forgetting", "4")
    arguments = [*arguments[:3], *[flag for part in data for flag in ("--data", part)], *arguments[5:]]
    arguments = without_flags(arguments, "--held-out", "--keep", "--prompt-style")
    arguments += ["--held-out", "6", "--keep", "last"]
    shown = run([*arguments, "--show-rows", "1"]).stdout
    assert not (work / "mixed").exists()  # --show-rows alone shows rows and stops
    done = run(arguments)
    said = done.stdout + done.stderr

    tokenizer = load_tokenizer(resolve_model(str(work / "model")))
    first = next(read_training_rows(str(parts["chat"])))
    ((row,),) = encode_conversations([first], tokenizer)
    marked = "".join(
        f"⟦{text}⟧" if trained else text for text, trained in decode_trained_runs(row, tokenizer)
    )
    assert marked.count("⟦") == 3 and "⟦사과 다음은 사과.<|eos|>⟧" in marked and marked.rstrip() in shown
    assert (
        "chat.jsonl" in said and "alpaca.jsonl" in said and "forgetting: the letters of 4 questions" in said
    )
    card = files.read_json(work / "mixed" / "kmmlu_fast.json")
    assert card["metrics"]["steps"] == 3
    assert card["data"]["tokens"]["chat_template"] == "plain"
    assert (work / "mixed" / "chat_template.jinja").read_text(encoding="utf-8") == BUILT_IN["plain"]
    assert files.read_json(work / "mixed" / "generation_config.json")["eos_token_id"] == 2
    assert (work / "mixed" / "tokenizer.json").is_file()
    records = read_training_log(work / "mixed" / "train_log.jsonl")
    assert [record["step"] for record in records if record["kind"] == "step"] == [1, 2, 3]  # also if measured
    held = [record for record in records if record["kind"] == "held_out"]
    assert len(held) >= 2 and held[-1]["loss"] < held[0]["loss"] and held[0]["accuracy"] is not None
    exam = [{"question": f"{w}?", "options": [w, "셋", "넷"], "answer": "A"} for w in WORDS[:6]]
    (work / "words.jsonl").write_text("\n".join(json.dumps(row) for row in exam), encoding="utf-8")
    flags = ["--model", str(work / "model"), "--adapter", str(work / "mixed"), "--dtype", "float32"]
    flags += ["--exam", str(work / "words.jsonl"), "--engine", "transformers"]
    run([sys.executable, "-m", "kmmlu_fast.eval", *flags, "--output-dir", str(work / "exam_runs")])
    runs = [store.load_run_directory(path.parent) for path in (work / "exam_runs").glob("*/config.json")]
    assert sorted(bool(found.config["adapter"]) for found in runs) == [False, True]
    (shift,) = [
        found.metrics.to_json()["adapter_shift"]["largest_nats"] for found in runs if found.config["adapter"]
    ]
    assert shift > 0 and all(len(found.predictions) == 6 for found in runs)
