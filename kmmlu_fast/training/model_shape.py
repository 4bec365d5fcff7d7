"""What a model is made of, counted before any weight is read.

In: a model directory, hub id or config, LoRA settings. Out: a ``ModelShape``: numbers of values by kind,
from the model built on torch's meta device (no memory). Knows nothing of bytes or devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.untrusted_text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the plan needs to know of a model, counted on the meta device. Numbers of values, not bytes."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    quantised: int  # weights of the decoder's linear layers: 4-bit
    unquantised: int  # embeddings, norms, biases, lm_head: 16-bit (tied weights once)
    largest_linear: int
    lora: int  # trainable

    @property
    def total(self) -> int:
        return self.quantised + self.unquantised + self.lora

    @property
    def trainable_share(self) -> float:
        return self.lora / self.total


def shape_from_config(
    config: Any, r: int, target_modules: list[str], trust_remote_code: bool = False
) -> ModelShape:
    """Count a transformers config's weights on the meta device. ModelError if no target module
    is in the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    linear = {
        name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head
    }
    weights = sum(m.weight.numel() for m in linear.values())
    adapted = [m for name, m in linear.items() if name.rsplit(".", 1)[-1] in target_modules]
    if not adapted:
        present = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise ModelError(
            f"--target-modules {', '.join(target_modules)}: none is in this model; it has"
            f" {', '.join(present)}"
        )
    text = config.get_text_config()
    return ModelShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        quantised=weights,
        unquantised=sum(p.numel() for p in model.parameters())
        - weights,  # parameters() names tied weights once
        largest_linear=max(m.weight.numel() for m in linear.values()),
        lora=sum(r * (m.in_features + m.out_features) for m in adapted),
    )


def read_model_shape(
    path: str | Path,
    r: int,
    target_modules: list[str],
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ModelShape:
    """``shape_from_config`` of a model directory or hub id; only its config is read."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        return shape_from_config(config, r, target_modules, trust_remote_code)
    except ModelError:
        raise
    except Exception as error:  # transformers raises of every kind for odd settings
        raise ModelError(f"{path}: its config.json cannot be read ({one_line(str(error), 200)})") from error
