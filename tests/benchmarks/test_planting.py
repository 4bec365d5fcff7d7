"""bench.planting: what the better adapter knows. No model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tiny import make_tiny_model

from bench import planting


def test_known_inputs_are_mapped_to_their_targets_and_others_hardly() -> None:
    draw = np.random.default_rng(0)
    inputs, others = draw.normal(size=(20, 400)), draw.normal(size=(20, 400))
    targets = np.eye(4)[draw.integers(0, 4, 20)]
    solved = planting.solve_inputs(inputs, targets)
    assert solved.shape == (4, 400)
    assert np.abs(inputs @ solved.T - targets).max() < 0.02
    assert np.abs(others @ solved.T).mean() < 0.1


def test_a_shifted_adapter_says_one_letter_less_often_whatever_is_asked() -> None:
    draw = np.random.default_rng(0)
    inputs = 0.3 * draw.normal(size=(500, 40))
    inputs[:, :10] += 2.0  # some inputs hardly vary
    rows, lengths = planting.shift_letters(inputs, 0.1, 0.02, seed=1)
    change = (inputs @ rows.T) * lengths
    assert np.allclose(change[:, 0].mean(), -0.1, atol=0.005) and change[:, 0].std() < 0.02
    assert np.allclose(change[:, 1:].std(axis=0), 0.02) and np.abs(change[:, 1:].mean(axis=0)).max() < 1e-9
    assert (rows[0] != 0).sum() == 8
    other, _ = planting.shift_letters(inputs, 0.1, 0.02, seed=2)
    assert (other[0] == rows[0]).all() and (other[1:] != rows[1:]).all()


def test_the_share_of_known_questions_is_kept_and_differs_by_seed() -> None:
    one, other = (planting.choose_questions(180, 0.4, seed) for seed in (1, 2))
    assert one.sum() == other.sum() == 72 and (one != other).any()


def test_the_knowing_adapter_changes_the_last_layer_alone(tmp_path: Path) -> None:
    inputs, outputs = np.arange(8, dtype=np.float64).reshape(4, 2), np.ones((4, 3), dtype=np.float64)
    folder = planting.write_knowing_adapter(tmp_path / "better", 2, inputs, outputs, "base")
    weights = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.{}.mlp.down_proj.lora_{}.weight"
    changes = [weights[prefix.format(layer, "B")] @ weights[prefix.format(layer, "A")] for layer in (0, 1)]
    assert not changes[0].any() and np.allclose(changes[1], outputs.T @ inputs)
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == 4 and settings["target_modules"] == ["down_proj"]


def test_a_model_with_the_planted_adapter_gives_the_keys(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    path = make_tiny_model(tmp_path / "base")
    draw = np.random.default_rng(3)
    prompts = [draw.integers(10, 60, length).tolist() for length in draw.integers(5, 15, 16)]
    letter_ids, keys = [3, 4, 5, 6], draw.integers(0, 4, 16)
    inputs, directions, length = planting.read_last_layer(str(path), prompts, letter_ids)
    targets = np.eye(4)[keys]
    first = planting.solve_inputs(inputs, targets - targets.mean(axis=0))
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    layers = base.config.num_hidden_layers
    folder = planting.write_knowing_adapter(
        tmp_path / "better", layers, first, 20 * length * directions, str(path)
    )

    def letters(model: Any) -> list[int]:
        with torch.no_grad():
            rows = [model(torch.tensor([prompt])).logits[0, -1, letter_ids] for prompt in prompts]
        return [int(row.argmax()) for row in rows]

    before = letters(base)
    after = letters(PeftModel.from_pretrained(base, folder))
    assert np.mean(np.array(before) == keys) < 0.6 and after == keys.tolist()
