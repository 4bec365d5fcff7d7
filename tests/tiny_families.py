"""Tiny random models of well-known families, and PEFT adapters of any kind for them; a second each, no
network.

In: a directory and a family's name in transformers (``Qwen2``, ``Phi3``, ``Qwen3Moe``, ...). Out: files that
transformers, PEFT and vLLM load. Beside ``tiny``, whose tokenizer they use.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tiny import make_tiny_tokenizer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What a family's config needs beside the shape, and the linear layers to adapt.
FAMILIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "Qwen2": ({}, PROJECTIONS),
    "Qwen3": ({"head_dim": 32}, PROJECTIONS),
    "Llama": ({}, PROJECTIONS),
    "Mistral": ({}, PROJECTIONS),
    "Gemma2": ({"head_dim": 32}, PROJECTIONS),
    "Phi3": ({}, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "GPTNeoX": ({}, ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]),
    "Exaone4": ({"sliding_window": 64, "sliding_window_pattern": 2}, PROJECTIONS),
    "Qwen3Moe": (
        {"head_dim": 32, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
        ["q_proj", "k_proj", "v_proj", "o_proj"],
    ),
}


def make_family_model(folder: Path, family: str, **settings: Any) -> Path:
    """A two-layer model of the family, with a byte-level tokenizer."""
    import torch
    import transformers

    tokenizer = make_tiny_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, f"{family}Config")(**{**shape, **FAMILIES[family][0], **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_peft_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter that changes answers: everything it trains is moved from where PEFT starts it. ``settings``
    are LoraConfig's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    wanted = {"r": 4, "lora_alpha": 8, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM", **settings}
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        adapted = get_peft_model(model, LoraConfig(**wanted))
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                whole = "modules_to_save.default" in name or "trainable_tokens" in name or "bias" in name
                if weight.requires_grad and (whole or "lora_" in name):
                    weight.add_(torch.randn_like(weight) * 0.1)
        adapted.save_pretrained(folder)
    return folder
