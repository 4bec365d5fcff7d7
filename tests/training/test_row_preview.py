"""train --show-rows N: rows with their trained part marked, nothing trained, also with --plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from exam_files import write_jsonl

from kmmlu_fast import train


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
