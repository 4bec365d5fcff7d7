"""Every matrix of an adapter has a place in its base, and every place its matrix; else it is counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_families import make_family_model, make_peft_adapter

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.models import adapter_fit
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fit")
    make_family_model(root / "base", "Qwen2")
    make_peft_adapter(root / "base", root / "lora")
    return root


def changed(lora: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(lora, folder)
    weights = folder / "adapter_model.safetensors"
    save_file(change(load_file(weights)), weights)
    return folder


def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("layers.1.", "blocks.1."): tensor for name, tensor in tensors.items()}


def with_vision(tensors: dict[str, Any]) -> dict[str, Any]:
    vision = {
        name.replace("model.layers.0", "vision_tower.layers.0"): tensor.clone()
        for name, tensor in tensors.items()
        if "layers.0.self_attn.q_proj" in name
    }
    return tensors | vision


def without_a_layer(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if "layers.1." not in name}


def without_prefix(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}


def narrower(tensors: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tensor[:-8].contiguous() if "k_proj.lora_B" in name else tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("mode", ["serve", "swap", "merge", "auto", "peft", "peft or merge", "server"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"14 of 28 matrices have no place in base, such as base_model\.model\.model\.blocks\.1\."),
        (with_vision, "2 of 30 matrices have no place in base, such as .*vision_tower"),
        (without_a_layer, "14 of the 28 matrices that adapter_config.json describes are not in the file"),
        (without_prefix, "28 of 28 matrices have no place in base"),
        (narrower, r"2 of 28 matrices have no place in base, .*56 x 4, where the base has 64 x 4"),
    ],
)
def test_misfits_are_counted_in_every_mode(
    made: Path, tmp_path: Path, mode: str, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    folder = changed(made / "lora", tmp_path / "odd", change)
    with pytest.raises(AdapterError, match=message) as caught:
        load_adapters([str(folder)], resolve_model(str(made / "base")), mode)
    assert "\n" not in str(caught.value)


def test_whole_weights_of_another_vocabulary_are_named(made: Path, tmp_path: Path) -> None:
    import torch

    def with_head(tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors | {"base_model.model.lm_head.weight": torch.zeros(268, 64)}

    folder = changed(made / "lora", tmp_path / "odd", with_head)
    with pytest.raises(AdapterError, match=r"whole lm_head.weight for 268 tokens, base has \d+.*resize"):
        load_adapters([str(folder)], resolve_model(str(made / "base")), "serve")


def test_headers_alone_tell_a_plain_adapter(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch: a finished evaluation is shown again in a second."""
    monkeypatch.setattr(adapter_fit, "build_empty_model", lambda model: pytest.fail("torch was needed"))
    assert load_adapters([str(made / "lora")], resolve_model(str(made / "base")), "auto")


def test_a_base_without_its_weights_here_is_asked_by_its_config(made: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(made / "base", base, ignore=shutil.ignore_patterns("*.safetensors"))
    assert load_adapters([str(made / "lora")], resolve_model(str(base)), "auto")
    odd = changed(made / "lora", tmp_path / "odd", renamed)
    with pytest.raises(AdapterError, match="14 of 28 matrices have no place"):
        load_adapters([str(odd)], resolve_model(str(base)), "auto")


def test_target_names_that_are_nowhere_are_an_error(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(made / "lora", folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["c_attn"]}))
    with pytest.raises(AdapterError, match="PEFT finds no place for it in base"):
        load_adapters([str(folder)], resolve_model(str(made / "base")), "auto")


def test_matrices_of_experts_have_ranks_of_their_own(tmp_path: Path) -> None:
    base = make_family_model(tmp_path / "base", "Qwen3Moe")
    make_peft_adapter(
        base, tmp_path / "lora", target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"]
    )
    assert load_adapters([str(tmp_path / "lora")], resolve_model(str(base)), "merge")
