"""The type of mixed precision: what Unsloth trains in, not what the card could compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.training import libraries
from kmmlu_fast.training.lora_model import half_precision_dtype, is_forced_to_float32


def peft_model(**marks: bool) -> Any:
    base = SimpleNamespace(**marks)
    return SimpleNamespace(get_base_model=lambda: base)


@pytest.mark.parametrize(
    ("bfloat16", "device", "forced", "dtype"),
    [
        (False, "cuda", True, None),  # Gemma 3 on a T4: float16 overflows, so Unsloth trains in float32
        (False, "cuda", False, "float16"),
        (True, "cuda", True, "bfloat16"),
        (True, "cuda", False, "bfloat16"),
        (False, "cpu", False, None),
        (True, "cpu", False, "bfloat16"),
    ],
)
def test_mixed_precision_follows_unsloth(
    monkeypatch: pytest.MonkeyPatch, bfloat16: bool, device: str, forced: bool, dtype: str | None
) -> None:
    unsloth = SimpleNamespace(is_bfloat16_supported=lambda: bfloat16)
    monkeypatch.setattr(libraries, "import_unsloth", lambda: unsloth)
    assert half_precision_dtype(device, peft_model(_unsloth_forced_float32=forced)) == dtype


def test_the_mark_is_found_on_the_adapter_model_or_its_base() -> None:
    assert not is_forced_to_float32(peft_model())  # no mark: another version, or a path that never forces
    assert is_forced_to_float32(peft_model(_unsloth_forced_float32=True))
    own = peft_model(_unsloth_forced_float32=True)
    own._unsloth_forced_float32 = False  # Unsloth's own reading: the outer model's mark first
    assert not is_forced_to_float32(own)


def test_the_mark_is_unsloths() -> None:
    """Its name in the installed version, read without importing it."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("unsloth")
    if spec is None or spec.origin is None:
        pytest.skip("Unsloth is not installed")
    source = (Path(spec.origin).parent / "models" / "_utils.py").read_text(encoding="utf-8")
    assert "model._unsloth_forced_float32 = bool(forced)" in source
