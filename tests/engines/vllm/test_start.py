"""Settings of an engine that may open on another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.vllm import start
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.machine import device
from kmmlu_fast.models.model import Model


def test_settings_do_not_ask_for_this_machines_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The head of a cluster has no GPU, its replicas have: what depends on it is decided by them."""
    monkeypatch.setattr(device, "has_gpu", lambda: pytest.fail("asked for a GPU"))
    monkeypatch.setattr(start, "has_gpu", lambda: pytest.fail("asked for a GPU"))
    values = {"model": "some/model", "engine": "ray", "ray_address": "head:6379", "temperature": 0.7}
    config = EvalConfig.model_validate({**values, "output_type": "generate_until", "trust_remote_code": True})
    model = Model(name="some/model", path="some/model", revision=None, digest="")
    adapters = [
        Adapter(name=str(rank), path=tmp_path, adapter_id=1, rank=rank, digest="") for rank in (4, 16)
    ]
    settings = start.vllm_engine_settings(config, model, adapters, 2048)
    assert settings.samples and settings.max_num_batched_tokens is None
    assert settings.extra == (("trust_remote_code", True),)
    assert (settings.max_lora_rank, settings.num_adapters, settings.generates) == (16, 2, True)
