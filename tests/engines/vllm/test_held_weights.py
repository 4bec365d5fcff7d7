"""The states of an engine whose weights are swapped: whole, or out of use; never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.core.errors import AdapterError, EngineError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.vllm.weight_swap import WeightSwapper


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
