"""The type of training is known before anything is loaded, and is Unsloth's own."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from kmmlu_fast.training.training_dtype import (
    OVERFLOW_IN_FLOAT16,
    overflows_in_float16,
    predict_training_dtype,
)


@pytest.mark.parametrize(
    ("types", "overflows"),
    [
        (("gemma3", "gemma3_text", "siglip_vision_model"), True),
        (("gemma3_text",), True),
        (("qwen3_moe",), True),
        (("gemma2",), False),
        (("qwen2",), False),
        (("qwen3",), False),
        ((), False),
    ],
)
def test_families_that_overflow(types: tuple[str, ...], overflows: bool) -> None:
    assert overflows_in_float16(types) is overflows


@pytest.mark.parametrize(
    ("capability", "types", "dtype"),
    [
        ((7, 5), ("gemma3_text",), "float32"),
        ((7, 5), ("qwen2",), "float16"),
        ((8, 0), ("gemma3_text",), "bfloat16"),
        (None, ("gemma3_text",), "bfloat16"),
    ],
)
def test_the_type_of_training(capability: tuple[int, int] | None, types: tuple[str, ...], dtype: str) -> None:
    assert predict_training_dtype(capability, types, "bfloat16") == dtype


def test_the_list_is_unsloths() -> None:
    spec = importlib.util.find_spec("unsloth_zoo") if importlib.util.find_spec("unsloth_zoo") else None
    if spec is None or spec.origin is None:
        pytest.skip("needs the extra [train]")
    source = (Path(spec.origin).parent / "model_lists.py").read_text("utf-8")
    values = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FORCE_FLOAT32"
    ]
    assert set(values[0]) == set(OVERFLOW_IN_FLOAT16)
