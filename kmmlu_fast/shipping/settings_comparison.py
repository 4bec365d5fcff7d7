"""Compares the settings that decide how weights are used: positions, attention, norms, heads.

In: the base's directory and an artefact's directory or GGUF header. Out: the names of settings that differ,
with both values. Knows nothing of weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from kmmlu_fast.models.gguf import GgufFile

_NAMES = (
    "rope_parameters",
    "rope_theta",
    "rope_scaling",
    "sliding_window",
    "layer_types",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "hidden_act",
    "hidden_activation",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "attention_bias",
)
# GGUF key -> setting of the base
_GGUF_NAMES = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
}


def compare_directories(base: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The settings that differ between two configs, each with both values."""
    return [
        f"{name} ({base.get(name)!r} in the base, {other.get(name)!r} here)"
        for name in _NAMES
        if not _are_equal(base.get(name), other.get(name))
    ]


def compare_with_gguf(base: dict[str, Any], file: GgufFile) -> list[str]:
    """The settings of a GGUF header that differ from the base's."""
    pairs = [(name, base.get(name), file.model_value(key)) for key, name in _GGUF_NAMES.items()]
    pairs.append(("rope_theta", _rope_value(base, "rope_theta"), file.model_value("rope.freq_base")))
    kind = _rope_value(base, "rope_type")
    kind = None if kind in (None, "default") else kind
    scaling = file.model_value("rope.scaling.type")
    if kind in ("linear", "yarn"):  # others are written as tensors (rope_freqs) or other keys
        pairs.append(("rope_type", kind, scaling))
        pairs.append(("rope factor", _rope_value(base, "factor"), file.model_value("rope.scaling.factor")))
    elif scaling not in (None, "none"):
        pairs.append(("rope_type", "default", scaling))
    if base.get("sliding_window") and "sliding_attention" in (base.get("layer_types") or []):
        pairs.append(("sliding_window", base["sliding_window"], file.model_value("attention.sliding_window")))
    return [
        f"{name} ({want!r} in the base, {found!r} here)"
        for name, want, found in pairs
        if want is not None and not _are_equal(want, found) and not (found is None and name == "head_dim")
    ]


def load_settings(folder: Path) -> dict[str, Any]:
    """A directory's settings as transformers fills them in, so that old and new spellings are equal."""
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(folder).to_dict()
    text = settings.get("text_config")
    return {**settings, **text} if isinstance(text, dict) else dict(settings)


def _rope_value(settings: dict[str, Any], name: str) -> Any:
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    full = rope.get("full_attention", rope)
    value = full.get(name) if isinstance(full, dict) else None
    return settings.get(name) if value is None else value


def _are_equal(one: Any, other: Any) -> bool:
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return math.isclose(one, other, rel_tol=1e-5)
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_are_equal(one.get(key), other.get(key)) for key in {*one, *other})
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    return bool(one == other)
