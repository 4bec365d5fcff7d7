"""Adapter weights as PEFT merges them, bit for bit: scales, patterns, types; and what is left to PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.models.adapters import adapter_way_problem
from kmmlu_fast.models.deltas import (
    LoraDelta,
    changed_weights,
    expand_packed_modules,
    lora_scale,
    read_lora_deltas,
)

PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


def adapter(folder: Path, base: Any, **more: Any) -> Path:
    """A PEFT adapter with random factors for the model, saved as PEFT saves it."""
    from peft import LoraConfig, get_peft_model

    settings = {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
        **more,
    }
    model = get_peft_model(base, LoraConfig(**settings))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder


def base(dtype: torch.dtype = torch.float32) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return Qwen2ForCausalLM(config).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 20}},
        {"target_modules": "all-linear", "alpha_pattern": {r".*\.0\.mlp\.(up|gate)_proj": 1}},
    ],
)
def test_weights_are_those_of_pefts_merge(tmp_path: Path, dtype: torch.dtype, more: dict[str, Any]) -> None:
    from peft import PeftModel

    folder = adapter(tmp_path, base(), **more)
    merged = (
        PeftModel.from_pretrained(base(dtype), str(folder)).merge_and_unload(safe_merge=True).state_dict()
    )
    plain, changes = base(dtype).state_dict(), read_lora_deltas(folder)
    assert adapter_way_problem(folder, "swap") is None
    for module, change in changes.items():
        ours = change.add_to_weight(plain[f"{module}.weight"], dtype)
        assert torch.equal(ours, merged[f"{module}.weight"])
        assert not torch.equal(ours, plain[f"{module}.weight"])
    assert {name for name in plain if not torch.equal(plain[name], merged[name])} == {
        f"{module}.weight" for module in changes
    }


def test_scales_by_hand() -> None:
    config = {
        "r": 16,
        "lora_alpha": 32,
        "rank_pattern": {"q_proj": 4},
        "alpha_pattern": {"layers.1.mlp.up_proj": 8},
    }
    assert lora_scale(config, "model.layers.0.self_attn.k_proj") == 2.0
    assert lora_scale(config, "model.layers.0.self_attn.q_proj") == 8.0
    assert lora_scale(config, "model.layers.1.mlp.up_proj") == 0.5
    assert lora_scale({**config, "use_rslora": True}, "model.layers.0.self_attn.q_proj") == 16.0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"lora_bias": True}, "lora_bias"),
    ],
)
def test_what_is_more_than_a_sum_is_left_to_peft(
    tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    folder = adapter(tmp_path, base())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changed}))
    assert reason in str(adapter_way_problem(folder, "swap"))


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens", "model.layers.0.mlp.experts.3.up_proj"])
def test_heads_embeddings_and_experts_are_left_to_peft(tmp_path: Path, module: str) -> None:
    folder = adapter(tmp_path, base())
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"base_model.model.{module}.lora_A.weight"] = torch.zeros(4, 32)
    save_file(tensors, folder / "adapter_model.safetensors")
    assert module in str(adapter_way_problem(folder, "swap"))


def test_a_module_without_both_factors_is_an_error(tmp_path: Path) -> None:
    folder = adapter(tmp_path, base())
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[next(key for key in tensors if "lora_B" in key)]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="both lora_A and lora_B"):
        read_lora_deltas(folder)


def test_partners_share_a_matrix_and_come_with_their_biases(tmp_path: Path) -> None:
    changes = read_lora_deltas(adapter(tmp_path, base()))
    touched = expand_packed_modules(changes, PACKED)
    assert {name.rpartition(".")[2] for name in touched} == {"q_proj", "k_proj", "v_proj", "down_proj"}
    plain = base().state_dict()
    written = dict(changed_weights(plain.items(), touched, changes, torch.float32))
    assert (
        "model.layers.0.self_attn.k_proj.bias" in written
        and "model.layers.0.mlp.up_proj.weight" not in written
    )
    assert torch.equal(
        written["model.layers.0.self_attn.v_proj.weight"], plain["model.layers.0.self_attn.v_proj.weight"]
    )
    assert not torch.equal(
        written["model.layers.1.self_attn.q_proj.weight"], plain["model.layers.1.self_attn.q_proj.weight"]
    )


def test_a_change_without_a_weight_is_an_error(tmp_path: Path) -> None:
    changes = read_lora_deltas(adapter(tmp_path, base()))
    plain = {name: tensor for name, tensor in base().state_dict().items() if "layers.1." not in name}
    with pytest.raises(AdapterError, match=r"no weight for model\.layers\.1"):
        list(changed_weights(plain.items(), set(changes), changes, torch.float32))


def test_sums_are_made_where_they_are_asked_for() -> None:
    """On a card they take a second for a 7B, on its host 20. torch's meta device, which computes shapes only,
    shows where they would be made."""
    change = LoraDelta(up=torch.ones(6, 2), down=torch.ones(2, 4), scale=0.5)
    summed = change.add_to_weight(torch.zeros(6, 4), torch.bfloat16, device="meta")
    assert summed.device.type == "meta" and summed.dtype == torch.bfloat16 and summed.shape == (6, 4)
    stored = [("a.weight", torch.zeros(6, 4)), ("a.bias", torch.zeros(6)), ("b.weight", torch.zeros(6, 4))]
    found = dict(changed_weights(stored, {"a"}, {"a": change}, torch.float32, "meta"))
    assert found.keys() == {"a.weight", "a.bias"} and found["a.weight"].device.type == "meta"
