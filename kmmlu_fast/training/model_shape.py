"""A model's sizes, counted before any weight is read.

In: a model directory, hub id or config, LoRA settings. Out: a ``ModelShape``: numbers of values by kind,
from the model on torch's meta device, which takes no memory. Knows nothing of bytes or devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.untrusted_text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the memory plan needs to know of a model, in numbers of values, not bytes."""

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
    """Count a transformers config's weights. ModelError if the model has none of the target modules."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    linear = [
        (name.rsplit(".", 1)[-1], module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    sizes = [module.weight.numel() for _, module in linear]
    adapted = [module for name, module in linear if name in target_modules]
    if not adapted:
        present = ", ".join(sorted({name for name, _ in linear}))
        raise ModelError(
            f"--target-modules {', '.join(target_modules)}: none is in this model; it has {present}"
        )
    text = config.get_text_config()
    parameters = sum(p.numel() for p in model.parameters())  # names tied weights once
    return ModelShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        quantised=sum(sizes),
        unquantised=parameters - sum(sizes),
        largest_linear=max(sizes),
        lora=sum(r * (m.in_features + m.out_features) for m in adapted),
    )


def read_model_shape(
    path: str | Path,
    r: int,
    target_modules: list[str],
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ModelShape:
    """``shape_from_config`` for a model directory or hub id; reads only its config."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        return shape_from_config(config, r, target_modules, trust_remote_code)
    except ModelError:
        raise
    except Exception as error:  # transformers raises errors of any kind for odd settings
        raise ModelError(f"{path}: its config.json cannot be read ({one_line(str(error), 200)})") from error
