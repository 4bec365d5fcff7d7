"""A local model's digest: whatever decides an answer changes it, whatever does not leaves it alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.models.model_files import decisive_files, edge_digest, model_content_digest

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text("{}")
    return made


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-00002-of-00003.safetensors",
        "model-Q4_K_M.gguf",
        "pytorch_model.bin",
        "consolidated.00.pth",
        "sub/part.safetensors",
        "weights.unheard_of",
    ],
)
def test_a_byte_in_the_middle_of_any_weights_makes_another_model(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(5 * MIB))
    before, edges = resolve_model(str(folder)).digest, edge_digest(folder)
    with path.open("r+b") as file:
        file.seek(5 * MIB // 2)
        file.write(b"\1")
    assert edge_digest(folder) == edges  # what the digest was until now
    assert resolve_model(str(folder)).digest != before


@pytest.mark.parametrize(
    "name",
    [
        "merges.txt",
        "vocab.json",
        "tokenizer.model",
        "modeling_own.py",
        "inner/layers.py",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "qwen.tiktoken",
        "generation_config.json",
    ],
)
def test_text_that_decides_an_answer_counts(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    found = [model_content_digest(folder)]
    for text in ("one", "two"):
        path.write_text(text)
        found.append(model_content_digest(folder))
    path.unlink()
    assert len(set(found)) == 3 and model_content_digest(folder) == found[0]


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "LICENSE",
        ".git/index",
        ".cache/huggingface/x.json",
        "optimizer.pt",
        "trainer_state.json",
        "checkpoint-5/model.safetensors",
        "report.html",
        "kmmlu_fast.json",
        ".model.lock",
    ],
)
def test_what_decides_nothing_does_not(folder: Path, name: str) -> None:
    before = model_content_digest(folder)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("something")
    assert model_content_digest(folder) == before


def test_adapters_and_runs_inside_the_directory_are_not_the_model(folder: Path) -> None:
    before = model_content_digest(folder)
    for name, content in (
        ("lora/adapter_config.json", {}),
        ("runs/one/config.json", {"fingerprint_parts": {}}),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content))
        (folder / name).with_name("adapter_model.safetensors").write_bytes(b"x")
    assert model_content_digest(folder) == before


def test_the_same_files_elsewhere_and_behind_links_are_the_same_model(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    assert model_content_digest(linked) == model_content_digest(folder)


def test_loops_and_pipes_end(folder: Path) -> None:
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.bin")
    assert list(decisive_files(folder)) == ["config.json"]


def test_a_directory_that_is_no_model_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmmlu_fast.models.model_files._MOST_FILES", 3)
    for number in range(5):
        (folder / f"{number}.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="more than 3 files"):
        model_content_digest(folder)
