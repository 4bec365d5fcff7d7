"""Where adapters lie: on the hub, in parts, in a trainer's folder, as pointers; one line for each fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.models import adapter_files
from kmmlu_fast.models.adapter_files import (
    find_adapter_folder,
    read_adapter_files,
    read_base_reference,
    split_adapter_spec,
)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    return make_tiny_adapter(make_tiny_model(root / "base"), root / "lora")


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("out/lora", ("", "out/lora")),
        ("org/name@main", ("", "org/name@main")),
        ("mine=out/lora", ("mine", "out/lora")),
        ("out/lr=1e-4", ("", "out/lr=1e-4")),
        ("/abs/lr=1e-4/r=16", ("", "/abs/lr=1e-4/r=16")),
        ("mine=out/lr=1e-4", ("mine", "out/lr=1e-4")),
        ("r=16", ("", "r=16")),  # a directory of that name is here
        ("r=8", ("r", "8")),
    ],
)
def test_a_path_with_an_equals_sign_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, parts: tuple[str, str]
) -> None:
    (tmp_path / "r=16").mkdir()
    monkeypatch.chdir(tmp_path)
    assert split_adapter_spec(spec) == parts


def in_parts(lora: Path, folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(lora, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    index = {}
    for number, name in enumerate(sorted(tensors)):
        index[name] = f"adapter_model-0000{1 + number % 3}-of-00003.safetensors"
    for part in set(index.values()):
        save_file({name: tensors[name] for name in index if index[name] == part}, folder / part)
    text = json.dumps({"weight_map": index})
    (folder / "adapter_model.safetensors.index.json").write_text(text)
    return folder


def test_parts_are_joined_once(lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    folder = in_parts(lora, tmp_path / "parts")
    whole, joined = read_adapter_files(lora, "x"), read_adapter_files(folder, "x")
    assert joined.shapes == whole.shapes and joined.folder != folder
    monkeypatch.setattr(adapter_files, "_write_joined", lambda *_: pytest.fail("joined again"))
    assert read_adapter_files(folder, "x") == joined
    (folder / "adapter_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"names 'adapter_model-00002-of-00003.safetensors', which is not"):
        read_adapter_files(folder, "x")


@pytest.mark.parametrize(
    ("state", "named", "why"),
    [
        (None, "checkpoint-1000", "the last"),
        ({"best_model_checkpoint": "/elsewhere/run/checkpoint-500"}, "checkpoint-500", "its best"),
        ({"best_model_checkpoint": "/elsewhere/run/checkpoint-7"}, "checkpoint-1000", "the last"),
        ({"best_model_checkpoint": None}, "checkpoint-1000", "the last"),
    ],
)
def test_a_trainers_folder_names_its_checkpoint(
    lora: Path, tmp_path: Path, state: dict[str, Any] | None, named: str, why: str
) -> None:
    for step in (500, 1000):
        shutil.copytree(lora, tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-2000").mkdir()  # without an adapter: it was killed while saving
    if state:
        (tmp_path / "checkpoint-1000" / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(AdapterError, match=f"give one checkpoint of it: .*{named} \\({why}"):
        read_adapter_files(tmp_path, "x")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_pointers_are_named(lora: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(lora, folder)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(AdapterError, match=f"{name} is a Git LFS pointer.*git lfs pull"):
        read_adapter_files(folder, "x")


def test_the_layout_of_mlx_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"fine_tune_type": "lora", "lora_parameters": {}})
    )
    with pytest.raises(AdapterError, match="MLX's layout; fuse it"):
        read_adapter_files(tmp_path, "x")


class Hub:
    """A hub with one repository; remembers what was downloaded."""

    def __init__(self, folder: Path, names: dict[str, int]) -> None:
        self.folder, self.names, self.asked = folder, names, []

    def model_info(self, name: str, revision: str | None = None, files_metadata: bool = False) -> Any:
        if name != "org/lora":
            raise OSError("404")
        siblings = [SimpleNamespace(rfilename=file, size=size) for file, size in self.names.items()]
        return SimpleNamespace(siblings=siblings, sha="c0ffee")

    def download(self, name: str, revision: str, allow_patterns: list[str]) -> str:
        self.asked.append((name, revision, allow_patterns))
        return str(self.folder)


@pytest.fixture
def hub(lora: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    made = Hub(
        lora, {"adapter_config.json": 900, "adapter_model.safetensors": 3 << 20, "optimizer.pt": 1 << 30}
    )
    monkeypatch.setattr(adapter_files, "hub_problem", lambda: "")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.download)
    return made


def test_a_hub_repository_is_read_at_its_commit_and_its_size_is_said(
    hub: Hub, lora: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="kmmlu_fast"):
        assert find_adapter_folder("org/lora@v2") == (lora, "lora")
    assert "3.0 MiB" in caplog.text
    [(name, revision, patterns)] = hub.asked
    assert (name, revision) == ("org/lora", "c0ffee") and not [p for p in patterns if p.endswith(".pt")]


def test_pickled_weights_are_refused_before_the_download(hub: Hub) -> None:
    hub.names = {"adapter_config.json": 900, "adapter_model.bin": 5}
    with pytest.raises(AdapterError, match=r"only adapter_model.bin; only safetensors are loaded"):
        find_adapter_folder("org/lora")
    hub.names = {"model.safetensors": 5}
    with pytest.raises(AdapterError, match="not a PEFT adapter"):
        find_adapter_folder("org/lora")
    assert not hub.asked


def test_a_name_that_is_nowhere_says_both(hub: Hub) -> None:
    with pytest.raises(AdapterError, match="org/none: no such directory, and the hub"):
        find_adapter_folder("org/none")


def test_the_base_is_known_by_card_or_settings(lora: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(lora, folder)
    named, _ = read_base_reference(folder, "x")
    assert str(named) == json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    card = {"base_model": {"name": "demo", "path": "/cache/demo", "revision": None}}
    (folder / "kmmlu_fast.json").write_text(json.dumps(card))
    assert read_base_reference(folder, "x") == ("demo", None)
    card["base_model"] |= {"name": "org/base", "revision": "abc"}
    (folder / "kmmlu_fast.json").write_text(json.dumps(card))
    assert read_base_reference(folder, "x") == (named, "abc")
