"""``train --plan`` names the type that training will compute in, on GPUs that are here and that are not."""

from __future__ import annotations

from typing import Any

import pytest

from kmmlu_fast.machine.gpus import Gpu
from kmmlu_fast.training import preview
from kmmlu_fast.training.config import TrainConfig

GIB = 1 << 30


def plan_lines(**values: Any) -> list[str]:
    return preview.preview_training(TrainConfig.model_validate({"data": "x.jsonl", "plan": True, **values}))


@pytest.mark.parametrize(
    ("capability", "model", "line"),
    [
        (
            (7, 5),
            "demo",
            "computes in float32: this family overflows in float16, and the device has no bfloat16",
        ),
        ((7, 5), "skt/A.X-4.0-Light", "computes in float16"),
        ((8, 9), "demo", "computes in bfloat16"),
    ],
)
def test_type_on_the_gpu_that_is_here(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], model: str, line: str
) -> None:
    card = Gpu(name="A card", capability=capability, total_bytes=16 * GIB, free_bytes=15 * GIB, driver="580")
    monkeypatch.setattr(preview, "list_gpus", lambda: [card])
    assert plan_lines(model=model)[1] == line


def test_type_on_a_gpu_that_is_not_here() -> None:
    line = plan_lines(model="demo", gpu_memory=16)[1]
    assert line.startswith("computes in bfloat16; on a GPU before Ampere") and "float32" in line
    assert plan_lines(model="skt/A.X-4.0-Light", gpu_memory=16)[1].endswith("in float16")
