"""Adapters and models are checked before any engine starts: one line each for what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.core.errors import AdapterError, KmmluError, ModelError
from kmmlu_fast.models.adapters import base_model_warning, load_adapters
from kmmlu_fast.models.model import Model, load_tokenizer, resolve_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    root = tmp_path_factory.mktemp("made")
    make_tiny_model(root / "base")
    make_tiny_adapter(root / "base", root / "lora")
    return resolve_model(str(root / "base")), root / "lora"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sound_adapter_is_described(made: tuple[Model, Path]) -> None:
    model, folder = made
    [adapter] = load_adapters([str(folder)], model, "serve")
    assert (adapter.name, adapter.adapter_id, adapter.rank, len(adapter.digest)) == ("lora", 1, 4, 16)
    assert base_model_warning(adapter, model) is None


@pytest.mark.parametrize("kind", ["gemma3_text", "qwen2", "llama", "gpt_neox"])
def test_a_model_without_its_tokenizers_files_is_one_line(tmp_path: Path, kind: str) -> None:
    """transformers makes a tokenizer of special tokens alone of nothing."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(Model("m", str(tmp_path), None, ""))


def test_same_directory_names_get_different_names_and_ids(made: tuple[Model, Path], tmp_path: Path) -> None:
    model, folder = made
    for parent in ("a", "b"):
        shutil.copytree(folder, tmp_path / parent / "lora")
    adapters = load_adapters(
        [str(tmp_path / "a/lora"), str(tmp_path / "b/lora"), f"mine={folder}"], model, "serve"
    )
    assert [a.name for a in adapters] == ["lora", "b-lora", "mine"]
    assert [a.adapter_id for a in adapters] == [1, 2, 3]
    with pytest.raises(AdapterError, match="'mine' is taken"):
        load_adapters([f"mine={folder}", f"mine={folder}"], model, "serve")


def without_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def without_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def torn_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"torn")


def torn_card(folder: Path) -> None:
    (folder / "kmmlu_fast.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (without_config, "no readable adapter_config.json"),
        (without_weights, "only safetensors"),
        (torn_weights, "not a safetensors file"),
        (torn_card, "not valid JSON"),
        (lambda folder: edit(folder, peft_type="IA3"), "only LORA"),
        (lambda folder: edit(folder, r=0), "rank r is 0"),
        (lambda folder: edit(folder, r=2), "has rank 4, adapter_config.json says 2"),
        (lambda folder: edit(folder, target_modules=[]), "target_modules is empty"),
        (lambda folder: edit(folder, modules_to_save=["lm_head"]), "modules_to_save"),
        (lambda folder: edit(folder, use_dora=True), "--adapter-mode merge"),
    ],
)
def test_spoiled_adapters_are_refused(
    made: tuple[Model, Path], tmp_path: Path, spoil: Callable[[Path], None], part: str
) -> None:
    model, folder = made
    copy = tmp_path / "lora"
    shutil.copytree(folder, copy)
    spoil(copy)
    with pytest.raises(AdapterError) as caught:
        load_adapters([str(copy)], model, "serve")
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_an_adapter_of_another_base_is_refused_by_size_and_named_by_name(
    made: tuple[Model, Path], tmp_path: Path
) -> None:
    model, folder = made
    wide = tmp_path / "wide"
    shutil.copytree(model.path, wide)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))
    with pytest.raises(AdapterError, match="made for a base of hidden size 64, wide has 128"):
        load_adapters([str(folder)], resolve_model(str(wide)), "serve")
    (wide / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(AdapterError, match="has weights for layer 1"):
        load_adapters([str(folder)], resolve_model(str(wide)), "serve")
    (wide / "config.json").write_text(json.dumps(config))
    renamed = resolve_model(str(wide))
    [adapter] = load_adapters([str(folder)], renamed, "serve")
    assert "sizes agree" in (base_model_warning(adapter, renamed) or "")


@pytest.mark.parametrize("name", ["/no/such/model", "nonsense", "./x"])
def test_unknown_models_are_one_line(name: str) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        resolve_model(name)


def test_an_adapter_given_as_model_is_explained(made: tuple[Model, Path]) -> None:
    with pytest.raises(ModelError, match="it is an adapter"):
        resolve_model(str(made[1]))


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(KmmluError, match="hub cannot be reached"):
        resolve_model("skt/A.X-4.0-Light")


def test_digests_tell_weights_apart(made: tuple[Model, Path], tmp_path: Path) -> None:
    model, _ = made
    make_tiny_model(tmp_path / "other", seed=1)
    assert resolve_model(model.path).digest == model.digest != resolve_model(str(tmp_path / "other")).digest


@pytest.mark.parametrize("part", ["text_config", "quantization_config"])
@pytest.mark.parametrize("value", ["awq", [1], 7])
def test_a_part_of_the_configuration_that_is_no_object_is_named(
    made: tuple[Model, Path], tmp_path: Path, part: str, value: object
) -> None:
    """transformers fails on it while it reads the tokenizer, and the message would blame that."""
    folder = tmp_path / "model"
    shutil.copytree(made[0].path, folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**settings, part: value}), encoding="utf-8")
    with pytest.raises(ModelError, match=f"{part} is .*, not an object"):
        resolve_model(str(folder)).config()
