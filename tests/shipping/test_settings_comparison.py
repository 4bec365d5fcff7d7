"""Settings that decide positions and attention, in two spellings and in GGUF headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.models.gguf import GgufFile
from kmmlu_fast.shipping.settings_comparison import compare_directories, compare_with_gguf

BASE: dict[str, Any] = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "layer_types": ["full_attention"],
    "sliding_window": None,
}
HEADER: dict[str, Any] = {
    "general.architecture": "qwen2",
    "qwen2.attention.head_count": 4,
    "qwen2.attention.head_count_kv": 2,
    "qwen2.attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
    "qwen2.rope.freq_base": 10000.0,
}


def header(**changes: Any) -> GgufFile:
    named = {f"qwen2.{name.replace('__', '.')}": value for name, value in changes.items()}
    return GgufFile(Path("x.gguf"), {**HEADER, **named}, ())


def test_the_same_settings() -> None:
    assert compare_directories(BASE, {**BASE, "rms_norm_eps": 0.000001, "vocab_size": 9}) == []
    assert compare_with_gguf(BASE, header()) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "rope_parameters"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"sliding_window": 512}, "sliding_window"),
    ],
)
def test_other_settings(changes: dict[str, Any], name: str) -> None:
    (found,) = compare_directories(BASE, {**BASE, **changes})
    assert found.startswith(name)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rope__freq_base": 1e6}, "rope_theta"),
        ({"attention__head_count_kv": 4}, "num_key_value_heads"),
        ({"rope__scaling__type": "yarn"}, "rope_type"),
    ],
)
def test_other_headers(changes: dict[str, Any], name: str) -> None:
    (found,) = compare_with_gguf(BASE, header(**changes)) or [""]
    assert found.startswith(name)


def test_lost_scaling_of_positions() -> None:
    scaled = {**BASE, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}}
    assert [line.split()[0] for line in compare_with_gguf(scaled, header())] == ["rope_type", "rope"]
    whole = header(rope__scaling__type="yarn", rope__scaling__factor=4.0)
    assert compare_with_gguf(scaled, whole) == []


def test_lost_window() -> None:
    windowed = {**BASE, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}
    assert compare_with_gguf(windowed, header())[0].startswith("sliding_window")
    assert compare_with_gguf(windowed, header(attention__sliding_window=512)) == []
