"""A model's sizes and the adapter that training will make of it, counted before any weight is read.

In: a model directory, hub id or config, LoRA settings. Out: a ``ModelShape`` (numbers of values by kind) and
the names to adapt, from the model and PEFT on torch's meta device, which takes no memory; ModelError for a
name that the model does not have. Knows nothing of bytes or devices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.models.adapter_features import WAYS, way_problem

# One matrix in place of several: whoever asks for a part of it gets all of it.
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the memory plan needs to know of a model, in numbers of values, not bytes."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    quantised: int  # weights of the decoder's linear layers: 4-bit
    unquantised: int  # embeddings, norms, biases, lm_head, experts in one matrix: 16-bit (tied weights once)
    largest_linear: int
    lora: int  # trainable
    targets: tuple[str, ...] = ()  # what to adapt, by the model's own names

    @property
    def total(self) -> int:
        return self.quantised + self.unquantised + self.lora

    @property
    def trainable_share(self) -> float:
        return self.lora / self.total


def shape_from_config(
    config: Any,
    r: int,
    target_modules: Sequence[str],
    trust_remote_code: bool = False,
    **lora_settings: Any,
) -> ModelShape:
    """Count a transformers config's weights. ModelError if the model lacks one of the target modules, or if
    the adapter would be one that evaluation does not take."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    sizes = [module.weight.numel() for module in linear.values()]
    parameters = sum(p.numel() for p in model.parameters())  # names tied weights once
    targets, experts = resolve_targets(model, list(linear), target_modules)
    leaves = {name.rpartition(".")[2] for name in linear}
    names = [target for target in targets if target in leaves or "." in target]
    if not names:
        raise ModelError(
            f"--target-modules {', '.join(targets)}: are matrices of experts alone in this model, which"
            f" cannot be trained by themselves; add a linear layer: {', '.join(sorted(leaves))}"
        )
    text = config.get_text_config()
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": r,
        "target_modules": names,
        "target_parameters": experts or None,
        # Unsloth gives gate and up in one matrix of experts the rank of both.
        "rank_pattern": {name: 2 * r for name in experts if name.endswith(".gate_up_proj")},
        **lora_settings,
    }
    return ModelShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        quantised=sum(sizes),
        unquantised=parameters - sum(sizes),
        largest_linear=max(sizes),
        lora=_count_adapter(model, settings),
        targets=tuple(targets),
    )


def resolve_targets(
    model: Any, linear: Sequence[str], target_modules: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The model's own names for the target modules (those of experts as they were given), and its matrices of
    experts among them. ModelError if a name hits nothing."""
    leaves = sorted({name.rpartition(".")[2] for name in linear})
    stacked = [name for name, p in model.named_parameters() if ".experts." in name and p.dim() == 3]
    experts = sorted({re.sub(r".*\blayers\.\d+\.", "", name) for name in stacked})
    names: dict[str, None] = {}
    matrices: dict[str, None] = {}
    missing = []
    for target in target_modules:
        fused = [name for name, parts in _FUSED.items() if target in parts]
        hits = [leaf for leaf in leaves if leaf == target] or [leaf for leaf in leaves if leaf in fused]
        if "." in target:
            hits = [target] * any(name == target or name.endswith(f".{target}") for name in linear)
        inside = [name for name in experts if name.rpartition(".")[2] in (target, *fused)]
        if not hits and not inside:
            missing.append(target)
        names |= dict.fromkeys(hits or [target])
        matrices |= dict.fromkeys(inside)
    if missing:
        none = "none is" if len(missing) == len(target_modules) else "not"
        own = sorted({*leaves, *(name.rpartition(".")[2] for name in experts)})
        raise ModelError(
            f"--target-modules {', '.join(map(one_line, missing))}: {none} in this model; it has"
            f" {', '.join(own)}: give --target-modules with names of these"
        )
    return list(names), list(matrices)


def _count_adapter(model: Any, settings: dict[str, Any]) -> int:
    """Trainable values, by PEFT's own places for the adapter; ``model`` is changed. ModelError if evaluation
    would refuse it."""
    from kmmlu_fast.models.adapter_fit import find_places  # doctor plans before anything is installed

    places = find_places(model, settings, {}, "this model", "--target-modules")
    problems = [way_problem(settings, places.own, way) for way in WAYS]
    if None not in problems:
        raise ModelError(f"--target-modules: evaluation would refuse the adapter ({problems[2]})")
    return sum(math.prod(places.shapes[key]) for key in places.own)


def read_model_shape(
    path: str | Path,
    r: int,
    target_modules: Sequence[str],
    revision: str | None = None,
    trust_remote_code: bool = False,
    **lora_settings: Any,
) -> ModelShape:
    """``shape_from_config`` for a model directory or hub id; reads only its config."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        return shape_from_config(config, r, target_modules, trust_remote_code, **lora_settings)
    except ModelError:
        raise
    except Exception as error:  # transformers raises errors of any kind for odd settings
        raise ModelError(f"{path}: its config.json cannot be read ({one_line(str(error), 200)})") from error
