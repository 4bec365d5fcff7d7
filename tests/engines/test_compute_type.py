"""``--dtype auto`` is settled for engines that compute here, and for no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmmlu_fast.engines import compute_type
from kmmlu_fast.engines.compute_type import resolve_compute_type
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.models.model import Model


@pytest.fixture
def gemma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    monkeypatch.setattr(compute_type, "gpu_capability", lambda: (7, 5))
    return Model("gemma", str(tmp_path), None, "")


def test_an_old_card_names_its_type_and_says_so(gemma: Model) -> None:
    options, note = resolve_compute_type(EngineConfig(model="x"), gemma)
    assert options.dtype == "float32" and note is not None and "compute capability 7.5" in note


@pytest.mark.parametrize(
    "given",
    [
        EngineConfig(model="x", dtype="bfloat16"),
        EngineConfig(model="x", engine="server", base_url="http://localhost:1/v1"),
        EngineConfig(model="x", engine="ray", ray_address="ray://host:1"),
    ],
)
def test_a_choice_or_another_machine_is_left_alone(gemma: Model, given: EngineConfig) -> None:
    assert resolve_compute_type(given, gemma) == (given, None)
