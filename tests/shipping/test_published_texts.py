"""What is published names no place of the machine that it was made on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.shipping.config import PushConfig
from kmmlu_fast.shipping.published_texts import is_local_path, publish_card, publish_texts
from kmmlu_fast.shipping.push import push_directory


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter as training leaves it, on a base of this machine."""
    base = tmp_path / "models" / "my-base"
    base.mkdir(parents=True)
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"\x08" + bytes(15))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "r": 8}))
    card = {"base_model": {"name": "my-base", "path": str(base)}, "data": {"file": str(folder / "README.md")}}
    (folder / "kmmlu_fast.json").write_text(json.dumps(card))
    (folder / "README.md").write_text(f"---\nbase_model: {base}\n---\n# LoRA for {base}\n", encoding="utf-8")
    return folder


def push(adapter: Path, tmp_path: Path, base: str | None) -> Path:
    staging = tmp_path / "staging"
    config = PushConfig(directory=[str(adapter)], repo="org/lora", base=base, dry_run=True, staging=staging)
    push_directory(config)
    return staging


def test_the_bases_path_is_not_published_and_the_way_out_is_said(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names the base by a place on this machine.*--base ORG/NAME"):
        push(adapter, tmp_path, None)
    assert not (tmp_path / "staging").exists()
    before = {path: path.read_bytes() for path in adapter.iterdir()}
    staging = push(adapter, tmp_path, "org/base")
    assert json.loads((staging / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"
    card = json.loads((staging / "kmmlu_fast.json").read_text())
    assert card == {"base_model": {"name": "my-base", "path": "org/base"}, "data": {"file": "README.md"}}
    assert ModelCard.load(staging / "README.md").data.base_model == "org/base"
    for path in staging.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
    assert {
        path: path.read_bytes() for path in adapter.iterdir()
    } == before  # the adapter itself is unchanged


def test_an_adapter_that_names_a_hub_id_is_published_as_it_is(adapter: Path, tmp_path: Path) -> None:
    text = json.dumps({"base_model_name_or_path": "org/base", "r": 8})
    (adapter / "adapter_config.json").write_text(text)
    (adapter / "README.md").write_text("---\nbase_model: org/base\n---\n# LoRA\n", encoding="utf-8")
    staging = push(adapter, tmp_path, None)
    assert (staging / "adapter_config.json").read_text() == text


def test_other_places_of_the_machine_are_refused(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    (adapter / "notes.md").write_text(f"trained in {tmp_path}/home/me/work", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"notes\.md: names a place on this machine .*; take it out"):
        push(adapter, tmp_path, "org/base")
    (adapter / "notes.md").write_text("trained at home", encoding="utf-8")
    (adapter / "tokenizer.json").write_text(f'"{tmp_path}/home/me/"', encoding="utf-8")  # a vocabulary
    assert push(adapter, tmp_path, "org/base").is_dir()
    with pytest.raises(ConfigError, match=r"README\.md: names a place"):
        publish_card(f"see {adapter.resolve()}", adapter, "org/base")


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("org/name", False),
        ("gpt2", False),
        ("/data/model", True),
        ("~/model", True),
        ("./model", True),
        ("C:\\models\\m", True),
        ("models/org/name", True),
    ],
)
def test_places_are_told_from_names(name: str, local: bool) -> None:
    assert is_local_path(name) == local


def test_faults(adapter: Path) -> None:
    with pytest.raises(ValueError, match="--base '/data/m': is a place on this machine"):
        PushConfig(directory=["x"], repo="a/b", base="/data/m")
    (adapter / "broken.json").write_text("{no json", encoding="utf-8")
    assert "broken.json" not in publish_texts(adapter, [adapter / "broken.json"], "org/base")
