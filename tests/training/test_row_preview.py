"""train --show-rows N: rows with their trained part marked, nothing trained, also with --plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from exam_files import write_jsonl

from kmmlu_fast import train

ROOT = Path(__file__).parents[2]
ALPACA = [{"instruction": f"{word}을(를) 쓰시오.", "output": f"{word}."} for word in ("사과", "바다", "구름")]
QUESTIONS = [
    {"question": f"{i}번은?", "options": ["바람", "구름", "호수", "등대"], "answer": "ABCD"[i % 4]}
    for i in range(6)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make_tiny_tokenizer(chat=True).save_pretrained(folder)
    (folder / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,'
        ' "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 300, "architectures":'
        ' ["LlamaForCausalLM"], "max_position_embeddings": 512, "rms_norm_eps": 1e-6}'
    )
    return folder


def chat(text: str, **keys: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text}!", **keys}]
    }


@pytest.mark.parametrize("plan", [False, True])
def test_rows_are_shown_and_nothing_is_trained(
    plan: bool,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    draft = [*chat("하나", weight=0)["messages"], *chat("둘")["messages"]]
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": draft}, chat("셋"), chat("넷")])
    flags = ["--data", str(path), "--model", str(model), "--show-rows", "2", "--dataset", "absent/none"]
    flags += ["--plan", "--gpu-memory", "24"] if plan else []
    assert train.run_train_command(flags) == 0
    out = capsys.readouterr().out
    assert "⟦둘!<|im_end|>⟧" in out and "⟦셋!<|im_end|>⟧" in out and "하나!" in out and "⟦하나!" not in out
    assert "넷" not in out and ("fits:" in out) is plan
    assert not (tmp_path / "out").exists()


def test_a_row_that_cannot_be_read_is_told_there_too(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [chat("하나"), {"messages": []}])
    assert train.run_train_command(["--data", str(path), "--model", str(model), "--show-rows", "1"]) == 2
    assert "row 2: its messages are list" in capsys.readouterr().err


def make_dialogue(word: str) -> dict[str, Any]:
    turns = ("안녕?", f"{word}!", "또?", f"{word} 또!")
    roles = ("user", "assistant") * 2
    return {"messages": [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]}


@pytest.mark.parametrize("name", ["train.yaml", "train_demo.yaml"])
def test_shipped_settings_work_with_rows_of_any_form(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They turn options, which only questions have: Alpaca rows and dialogues are trained as they are."""
    parts = {
        "alpaca": write_jsonl(tmp_path / "alpaca.jsonl", ALPACA),
        "chats": write_jsonl(tmp_path / "chats.jsonl", [make_dialogue("하나"), make_dialogue("둘")]),
        "questions": write_jsonl(tmp_path / "questions.jsonl", QUESTIONS),
    }
    said = {}
    for files in (["alpaca"], ["chats"], ["questions"], [*parts]):
        flags = ["--config", str(ROOT / "configs" / name), "--model", str(model), "--show-rows", "20"]
        for file in files:
            flags += ["--data", str(parts[file])]
        assert train.run_train_command(flags) == 0
        captured = capsys.readouterr()
        said[" ".join(files)] = captured.out, captured.err
    note = "--rotate-options is for questions; "
    assert "⟦사과.<|im_end|>⟧" in said["alpaca"][0] and f"{note}all rows" in said["alpaca"][1]
    assert said["chats"][0].count("⟦") == 4 and f"{note}all rows" in said["chats"][1]
    assert note not in said["questions"][1]
    shown, notes = said["alpaca chats questions"]
    assert f"{note}5 of the 11 rows" in notes
    assert "⟦사과.<|im_end|>⟧" in shown and "⟦둘 또!<|im_end|>⟧" in shown
    epochs = 2 if name == "train_demo.yaml" else 3
    variants = [line for line in shown.splitlines() if line.startswith("⟦ ") or "⟦ " in line]
    assert len(variants) > 6 * (epochs - 1)  # the questions, and they alone, under several letters


def test_a_flag_turns_off_what_the_shipped_settings_turn_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "alpaca.jsonl", ALPACA)
    flags = ["--config", str(ROOT / "configs" / "train_demo.yaml"), "--no-rotate-options"]
    assert (
        train.run_train_command([*flags, "--data", str(path), "--model", str(model), "--show-rows", "1"]) == 0
    )
    assert "--rotate-options" not in capsys.readouterr().err
