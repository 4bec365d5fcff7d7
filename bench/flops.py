"""Floating-point operations of a pass, counted from the model's config: linear layers, attention, LM head.

In: config.json's fields, prompt lengths. Out: FLOPs (a multiply-add is two). Norms, rotary embedding and
softmax are left out (below one per cent). Knows nothing of engines. Dense decoder-only models; a mixture of
experts is refused rather than counted wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the cost of a token. ``windows`` has one entry a layer: the attention's
    reach in tokens, None = all before.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    windows: tuple[int | None, ...]

    @property
    def layers(self) -> int:
        return len(self.windows)

    @property
    def products(self) -> list[tuple[str, int, int]]:
        """(name, inputs, outputs) of one layer's matrix products, as vLLM fuses them."""
        return [
            ("qkv", self.hidden, (self.heads + 2 * self.kv_heads) * self.head_dim),
            ("out", self.heads * self.head_dim, self.hidden),
            ("gate_up", self.hidden, 2 * self.intermediate),
            ("down", self.intermediate, self.hidden),
        ]

    @property
    def linear_flops(self) -> int:
        """Of one token, all layers."""
        return 2 * self.layers * sum(inputs * outputs for _, inputs, outputs in self.products)

    @property
    def head_flops(self) -> int:
        """Of one position whose next token is asked for."""
        return 2 * self.hidden * self.vocabulary

    def attention_flops(self, tokens: int, cached: int = 0) -> int:
        """Of positions ``cached`` to ``tokens`` - 1 of a causal prompt: scores and values, each
        2 x heads x head_dim a pair.
        """
        pairs = sum(_causal_pairs(tokens, window) - _causal_pairs(cached, window) for window in self.windows)
        return 4 * self.heads * self.head_dim * pairs


def _causal_pairs(tokens: int, window: int | None) -> int:
    """How many (query, key) pairs ``tokens`` positions have when each sees itself and those
    before, ``window`` at most.
    """
    full = tokens if window is None else min(tokens, window)
    return full * (full + 1) // 2 + (tokens - full) * (window or 0)


def shape_of(config: dict[str, Any]) -> Shape:
    """From config.json (text settings at the top). ConfigError for a mixture of experts."""
    if any(config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise ConfigError(
            f"bench: FLOPs of {config.get('model_type')} are not counted (mixture of experts); take a dense"
            " model"
        )
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    kinds = (
        config.get("layer_types")
        or ["sliding_attention" if window else "full_attention"] * config["num_hidden_layers"]
    )
    return Shape(
        hidden,
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
        config["intermediate_size"],
        config["vocab_size"],
        tuple(window if kind == "sliding_attention" else None for kind in kinds),
    )


def pass_flops(shape: Shape, prompts: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Of prefilling prompts given as (tokens, cached tokens), one scored position each: linear,
    attention, head and total.
    """
    linear = attention = head = 0
    for tokens, cached in prompts:
        linear += (tokens - cached) * shape.linear_flops
        attention += shape.attention_flops(tokens, cached)
        head += shape.head_flops
    return {"linear": linear, "attention": attention, "head": head, "total": linear + attention + head}
