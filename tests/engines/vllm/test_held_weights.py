"""The states of an engine whose weights are swapped: whole, or out of use; never half."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kmmlu_fast.core.errors import AdapterError, EngineError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.vllm.engine import VllmEngine
from kmmlu_fast.engines.vllm.weight_swap import SwapWorker, WeightSwapper
from kmmlu_fast.models import deltas
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.deltas import LoraDelta
from kmmlu_fast.models.model import resolve_model


def adapter(name: str) -> Adapter:
    return Adapter(name=name, path=Path(name), adapter_id=1, rank=4, digest=f"digest-{name}")


class Engine:
    """Weights of three layers; writing or forgetting fails on request."""

    def __init__(self) -> None:
        self.layers = ["base"] * 3
        self.cached = "base"
        self.faults: list[BaseException | None] = []  # one a writing, after its second layer or its first
        self.forget_faults: list[Exception | None] = []
        self.writings = 0

    def load(self, wanted: Adapter | None) -> None:
        self.writings += 1
        fault = self.faults.pop(0) if self.faults else None
        for i in range(3):
            if fault is not None and i == max(3 - self.writings, 1):
                raise fault
            self.layers[i] = wanted.name if wanted else "base"

    def forget(self) -> None:
        if self.forget_faults and (fault := self.forget_faults.pop(0)):
            raise fault
        self.cached = self.layers[0]

    def whole(self) -> str | None:
        return self.layers[0] if len({*self.layers, self.cached}) == 1 else None


def test_swaps_write_once_and_the_same_again_writes_nothing() -> None:
    engine = Engine()
    swapper = WeightSwapper(engine.load, engine.forget)
    for wanted, writings in (
        (None, 0),
        (adapter("one"), 1),
        (adapter("one"), 1),
        (adapter("two"), 2),
        (None, 3),
    ):
        swapper.swap_to(wanted)
        swapper.check_usable()
        assert engine.whole() == (wanted.name if wanted else "base")
        assert engine.writings == writings


@pytest.mark.parametrize("fault", [RuntimeError("no memory"), AdapterError("torn file")])
def test_a_fault_brings_the_base_back(fault: Exception) -> None:
    engine = Engine()
    swapper = WeightSwapper(engine.load, engine.forget)
    swapper.swap_to(adapter("one"))
    engine.faults = [fault]
    with pytest.raises(type(fault) if isinstance(fault, AdapterError) else EngineError, match=str(fault)):
        swapper.swap_to(adapter("two"))
    swapper.check_usable()
    assert engine.whole() == "base" and swapper.adapter is None
    swapper.swap_to(adapter("two"))
    assert engine.whole() == "two"


def test_an_engine_that_cannot_be_restored_refuses_until_it_is() -> None:
    engine = Engine()
    swapper = WeightSwapper(engine.load, engine.forget)
    engine.faults = [RuntimeError("first"), RuntimeError("second")]
    with pytest.raises(EngineError, match="first"):
        swapper.swap_to(adapter("one"))
    assert engine.whole() is None
    with pytest.raises(EngineError, match="half of it"):
        swapper.check_usable()
    swapper.swap_to(None)
    swapper.check_usable()
    assert engine.whole() == "base"


def test_an_interrupt_leaves_it_out_of_use() -> None:
    engine = Engine()
    swapper = WeightSwapper(engine.load, engine.forget)
    engine.faults = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        swapper.swap_to(adapter("one"))
    assert engine.whole() is None
    with pytest.raises(EngineError, match="half of it"):
        swapper.check_usable()


def test_a_cache_that_cannot_be_emptied_counts_as_a_fault() -> None:
    engine = Engine()
    swapper = WeightSwapper(engine.load, engine.forget)
    engine.forget_faults = [EngineError("cache"), EngineError("cache")]
    with pytest.raises(EngineError, match="cache"):
        swapper.swap_to(adapter("one"))
    with pytest.raises(EngineError, match="half of it"):
        swapper.check_usable()


def test_the_worker_sums_on_its_own_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's worker on a card has ``device``; here torch's meta device, which computes shapes only."""
    stored = [(f"layers.{n}.q_proj.weight", torch.zeros(6, 4)) for n in range(3)]
    loader = SimpleNamespace(get_all_weights=lambda config, model: iter(stored))
    package = "vllm.model_executor.model_loader"
    monkeypatch.setitem(sys.modules, package, SimpleNamespace(get_model_loader=lambda config: loader))
    monkeypatch.setitem(sys.modules, f"{package}.reload", SimpleNamespace(finalize_layerwise_reload=None))
    change = LoraDelta(up=torch.ones(6, 2), down=torch.ones(2, 4), scale=1.0)
    monkeypatch.setattr(deltas, "read_lora_deltas", lambda folder: {"layers.1.q_proj": change})
    written: list[Any] = []
    worker: Any = SwapWorker()
    worker.device = torch.device("meta")
    worker.model_runner = SimpleNamespace(get_model=SimpleNamespace)
    worker.vllm_config = SimpleNamespace(
        model_config=SimpleNamespace(dtype=torch.bfloat16), load_config=SimpleNamespace()
    )
    worker.reload_weights = lambda weights_iterator: written.extend(weights_iterator)
    assert worker.write_adapter(str(tmp_path)) == 1
    [(name, weight)] = written
    assert name == "layers.1.q_proj.weight" and weight.device.type == "meta"


def test_an_adapter_that_was_replaced_is_not_answered_under_the_old_digest(
    model: Path, lora: Path, tmp_path: Path
) -> None:
    """Trained again into the same folder after the command, or its warm engine, was told the digest."""
    [told] = load_adapters([str(shutil.copytree(lora, tmp_path / "lora"))], resolve_model(str(model)), "swap")
    written: list[str | None] = []
    engine = VllmEngine.__new__(VllmEngine)
    engine._llm = SimpleNamespace(collective_rpc=lambda name, args: written.extend(args))
    swapper = WeightSwapper(engine._write_adapter, lambda: None)
    swapper.swap_to(told)
    swapper.swap_to(None)
    config = told.path / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(AdapterError, match="changed since this command read them"):
        swapper.swap_to(told)
    assert written == [str(told.path), None, str(told.path), None] and swapper.adapter is None
    swapper.check_usable()
