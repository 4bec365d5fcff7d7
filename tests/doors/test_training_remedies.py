"""What train advises is done, and works: each command is refused with a remedy, and passes with it.

Nothing is trained: without Unsloth a command that passes every check ends with "training needs unsloth", and
--show-rows and --plan end by themselves.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from exam_files import write_jsonl

from kmmlu_fast import train
from kmmlu_fast.data import dataset
from kmmlu_fast.data.alpaca import SftRow, write_sft_rows
from kmmlu_fast.data.subjects import find_subjects

PASSED = "training needs unsloth"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's tokenizer and config, and rows of many kinds."""
    root = tmp_path_factory.mktemp("remedies")
    tiny.make_tiny_tokenizer(chat=True).save_pretrained(root / "model")
    (root / "model" / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,'
        ' "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 300, "architectures":'
        ' ["LlamaForCausalLM"], "max_position_embeddings": 512, "rms_norm_eps": 1e-6}'
    )
    alpaca = [{"instruction": f"{i}번을 쓰시오.", "output": f"{i}번."} for i in range(20)]
    write_jsonl(root / "alpaca.jsonl", alpaca)
    write_jsonl(root / "three.jsonl", alpaca[:3])
    write_jsonl(root / "bad.jsonl", [*alpaca, {"instruction": "빈 답", "output": ""}])
    write_jsonl(root / "own.jsonl", [{"질문": f"{i}?", "답": f"{i}!"} for i in range(20)])
    preference = [{"prompt": f"{i}?", "chosen": f"{i}!", "rejected": "몰라요."} for i in range(20)]
    write_jsonl(root / "preference.jsonl", preference)
    numbers = [
        {"question": f"{i}번?", "options": ["하나", "둘", "셋", "넷"], "answer": 1 + i % 3} for i in range(20)
    ]
    write_jsonl(root / "numbers.jsonl", numbers)
    write_jsonl(root / "questions.jsonl", [{**row, "answer": "ABCD"[i % 4]} for i, row in enumerate(numbers)])
    turns = [{"role": role, "content": f"{role} 말"} for role in ("user", "assistant") * 2]
    write_jsonl(root / "turns.jsonl", [{"messages": turns}])
    write_jsonl(root / "both.jsonl", [{"messages": turns[:2], **row} for row in alpaca])
    write_jsonl(root / "long.jsonl", [{"instruction": "길게", "output": "가" * 400}, *alpaca])
    leaked = dataset.load_questions("sample", "test", find_subjects(["Math"]))[:2]
    learned = dataset.load_questions("sample", "train", find_subjects(["Math"]))[:10]
    write_sft_rows(
        root / "leaked.jsonl", [SftRow(question=q, strategy="uniform") for q in [*learned, *leaked]]
    )
    return root


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], files: Path, data: str, *flags: str) -> str:
    given = ["--data", str(files / data), "--model", str(files / "model"), "--dataset", "sample"]
    code = train.run_train_command([*given, *flags])
    captured = capsys.readouterr()
    assert code in (0, 2) and "Traceback" not in captured.err
    return captured.out + captured.err if code == 0 else captured.err


CASES: dict[str, tuple[str, list[str], str, list[str]]] = {
    # what is wrong: file, flags that are refused, the remedy as it is told, flags with the remedy
    "few rows": ("three.jsonl", [], "--held-out 0 --keep last", ["--held-out", "0", "--keep", "last"]),
    "keep": ("alpaca.jsonl", ["--held-out", "0"], "--keep last", ["--held-out", "0", "--keep", "last"]),
    "keep, held out": ("alpaca.jsonl", ["--held-out", "0"], "give --held-out N", ["--held-out", "4"]),
    "bad row": ("bad.jsonl", [], "--bad-rows drop", ["--bad-rows", "drop"]),
    "columns": (
        "own.jsonl",
        [],
        "--columns instruction=...,output=...",
        ["--columns", "instruction=질문,output=답"],
    ),
    "preference": (
        "preference.jsonl",
        [],
        "--columns prompt=prompt,completion=chosen",
        ["--columns", "prompt=prompt,completion=chosen"],
    ),
    "coding": ("numbers.jsonl", [], "--answer-coding 'from 1'", ["--answer-coding", "from 1"]),
    "leak": ("leaked.jsonl", [], "--allow-leakage", ["--allow-leakage"]),
    "memory": (
        "alpaca.jsonl",
        ["--gpu-memory", "8"],
        "--max-memory-gib",
        ["--max-memory-gib", "8"],
    ),
    "template of questions": (
        "questions.jsonl",
        ["--chat-template", "chatml"],
        "--prompt-style chat",
        ["--chat-template", "chatml", "--prompt-style", "chat"],
    ),
    "template file": (
        "alpaca.jsonl",
        ["--chat-template", "absent.jinja"],
        "names are plain, chatml",
        ["--chat-template", "plain"],
    ),
    "scheduler": (
        "alpaca.jsonl",
        ["--lr-scheduler-type", "cosin"],
        "cosine",
        ["--lr-scheduler-type", "cosine"],
    ),
    "whole modules": (
        "alpaca.jsonl",
        ["--modules-to-save", "lm_head"],
        "--target-modules",
        ["--target-modules", "q_proj"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_remedy_of_a_refusal_works(
    name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, refused, remedy, mended = CASES[name]
    output = ["--output-dir", str(tmp_path / "lora")]
    said = run(capsys, files, data, *refused, *output)
    assert remedy in said and PASSED not in said
    assert PASSED in run(capsys, files, data, *mended, *output)
    assert not (tmp_path / "lora").exists()


SHOWN: dict[str, tuple[str, list[str], str, list[str]]] = {
    "turns in a style": ("turns.jsonl", ["--prompt-style", "qa"], "leave --prompt-style out", []),
    "too long": (
        "long.jsonl",
        ["--too-long", "refuse", "--max-seq-length", "100"],
        "raise it, or give --too-long truncate or drop",
        ["--too-long", "drop", "--max-seq-length", "100"],
    ),
    "variable": (
        "alpaca.jsonl",
        ["--chat-template", "chatml", "--chat-template-kwargs", "x=1"],
        "it reads none",
        ["--chat-template", "chatml"],
    ),
    "two layouts": (
        "both.jsonl",
        [],
        "--columns, such as",
        ["--columns", "instruction=instruction,output=output"],
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_remedy_of_a_refused_row_works(
    name: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, refused, remedy, mended = SHOWN[name]
    said = run(capsys, files, data, "--show-rows", "3", *refused)
    assert remedy in said and "⟦" not in said
    assert "⟦" in run(capsys, files, data, "--show-rows", "3", *mended)


def test_the_remedies_of_a_plan_work(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = run(capsys, files, "alpaca.jsonl", "--plan", "--gpu-memory", "24", "--target-modules", "v_prj")
    own = re.search(r"it has ([\w, ]+): give --target-modules with names of these", wrong)
    assert own is not None
    names = ["--target-modules", own[1].replace(" ", "")]
    assert "fits:" in run(capsys, files, "alpaca.jsonl", "--plan", "--gpu-memory", "24", *names)

    long = ["--plan", "--gpu-memory", "1.2", "--max-seq-length", "400000", "--effective-batch", "1"]
    said = run(capsys, files, "alpaca.jsonl", *long)
    shorter = re.search(r"--max-seq-length (\d+)", said)
    assert shorter is not None, said
    assert "do not fit" not in run(capsys, files, "alpaca.jsonl", *long, "--max-seq-length", shorter[1])


@pytest.mark.parametrize("changes", [["--micro-batch", "2"], ["--measure-every", "5"], ["--save-every", "3"]])
def test_an_unfinished_directory_is_resumed_also_with_the_remedies_of_lost_memory(
    changes: list[str], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``state`` itself compares the settings once the model is loaded; here a finished directory does."""
    from kmmlu_fast.training.config import TrainConfig
    from kmmlu_fast.training.inputs import data_digest

    config = TrainConfig(
        data=[str(files / "alpaca.jsonl")], model=str(files / "model"), dataset="sample", output_dir=tmp_path
    )
    recorded: dict[str, Any] = {"settings": config.result_settings(), "data_digest": data_digest(config)}
    (tmp_path / "training.json").write_text(json.dumps(recorded))
    output = ["--output-dir", str(tmp_path)]
    assert "give --resume to continue it" in run(capsys, files, "alpaca.jsonl", *output)
    assert PASSED in run(capsys, files, "alpaca.jsonl", *output, "--resume", *changes)
    for name in ("kmmlu_fast.json", "adapter_config.json"):
        (tmp_path / name).write_text("{}")
    refused = run(capsys, files, "alpaca.jsonl", *output, "--resume", "--r", "8")
    assert "was trained with other settings: r (16 there, 8 here)" in refused
    finished = run(capsys, files, "alpaca.jsonl", *output, "--resume", *changes)
    assert "was trained with other settings" not in finished
