"""An export of a small adapter in 16 bit warns with the number and the way out; a large one is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter
from tiny_gguf import make_gguf_ready_model

from kmmlu_fast.shipping.kept_change import (
    forecast_kept_change,
    measure_exported_files,
    measure_kept_change,
    read_plain_deltas,
    warn_of_rounding,
)
from kmmlu_fast.shipping.source import ShippingSource, load_shipping_source

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf_ready_model(tmp_path_factory.mktemp("kept") / "base", "qwen2")


def adapter_source(base: Path, folder: Path, scale: float) -> ShippingSource:
    return load_shipping_source(str(make_tiny_adapter(base, folder, scale=scale)), None)


def merge_by_hand(base: Path, source: ShippingSource, folder: Path, dtype: Any) -> Path:
    """base + adapter, rounded to ``dtype``, as any other tool would write it."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    for module, delta in read_plain_deltas(source).items():
        change = delta.scale * (delta.up.float() @ delta.down.float())
        tensors[f"{module}.weight"] = tensors[f"{module}.weight"].float() + change
    folder.mkdir()
    save_file(
        {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    return folder


def test_small_and_large_changes(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="kmmlu_fast")
    small, large = (adapter_source(base, tmp_path / name, scale) for name, scale in (("s", 3e-4), ("l", 0.5)))
    kept = warn_of_rounding(small, read_plain_deltas(small), "auto", "merged", 2_000_000_000)
    said = caplog.text
    caplog.clear()
    assert kept is not None and kept.share < 0.95
    assert f"keeps {100 * kept.share:.0f} %" in said and "--dtype float32 keeps all of it (2.0 GB" in said
    warn_of_rounding(small, read_plain_deltas(small), "float32", "merged", 1)
    warn_of_rounding(large, read_plain_deltas(large), "auto", "merged", 1)
    assert "warning" not in caplog.text


def test_what_a_file_holds_is_what_was_forecast(base: Path, tmp_path: Path) -> None:
    import torch

    source = adapter_source(base, tmp_path / "lora", 1e-4)
    deltas = read_plain_deltas(source)
    for dtype in (torch.bfloat16, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        merged = merge_by_hand(base, source, tmp_path / kind, dtype)
        forecast, measured = (
            forecast_kept_change(base, deltas, kind),
            measure_kept_change(base, deltas, merged),
        )
        assert forecast is not None and measured is not None
        assert measured.share == pytest.approx(forecast.share, abs=0.01)


def test_a_file_that_holds_less_than_was_said_is_warned_of(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    caplog.set_level("INFO", logger="kmmlu_fast")
    source = adapter_source(base, tmp_path / "lora", 1e-4)
    deltas = read_plain_deltas(source)
    merged = merge_by_hand(base, source, tmp_path / "merged", torch.bfloat16)
    forecast = forecast_kept_change(base, deltas, "bfloat16")
    assert set(measure_exported_files(source, deltas, merged, forecast, 0)) == {"merged"}
    assert "warning" not in caplog.text  # said before merging
    measure_exported_files(source, deltas, merged, None, 0)  # the base was not here before merging
    assert "warning: merged holds" in caplog.text
    assert "--dtype float32 keeps all of it (serve it in float32" in caplog.text
