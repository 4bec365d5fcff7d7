"""``--init-adapter``: the adapter's own settings and base; what cannot be continued is refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_families import make_family_model, make_peft_adapter

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.initial_adapter import load_initial_weights, take_initial_adapter


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("initial")
    make_family_model(root / "base", "Qwen2")
    make_peft_adapter(root / "base", root / "lora", r=6, target_modules=["q_proj", "up_proj"])
    make_peft_adapter(root / "base", root / "pattern", rank_pattern={"q_proj": 8})
    make_peft_adapter(root / "base", root / "head", target_modules=["q_proj", "lm_head"])
    return root


def config(folder: Path, *flags: str) -> TrainConfig:
    return parse_config(TrainConfig, ["--data", "x", "--init-adapter", str(folder), *flags], "train")


def test_settings_and_base_are_the_adapters(made: Path) -> None:
    taken = take_initial_adapter(config(made / "lora"))
    assert (taken.r, taken.lora_alpha, taken.target_modules) == (6, 8, ["q_proj", "up_proj"])
    assert taken.model == str(made / "base")
    assert take_initial_adapter(config(made / "lora", "--model", "demo", "--r", "6")).model == "demo"
    with pytest.raises(TrainError, match="was trained with r 6, not 16"):
        take_initial_adapter(config(made / "lora", "--r", "16"))


@pytest.mark.parametrize(("name", "reason"), [("pattern", "rank_pattern"), ("head", "lm_head")])
def test_other_kinds_are_refused(made: Path, name: str, reason: str) -> None:
    with pytest.raises(TrainError, match=reason):
        take_initial_adapter(config(made / name))


def test_the_new_adapter_starts_with_the_old_ones_weights(made: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(made / "base")
    model = get_peft_model(base, LoraConfig(r=6, target_modules=["q_proj", "up_proj"]))
    load_initial_weights(model, str(made / "lora"))
    state = model.state_dict()
    for name, tensor in load_file(made / "lora" / "adapter_model.safetensors").items():
        assert torch.equal(state[name.replace(".weight", ".default.weight")], tensor)
