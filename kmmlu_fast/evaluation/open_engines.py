"""Opens engines, one at a time: one for the base and all served or swapped adapters, one per merged copy.

In: plans and a function that opens engines. Out: an engine that answers as a model state. Knows nothing of
questions or run directories.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.protocol import Engine, SwappingEngine
from kmmlu_fast.evaluation.adapter_mode import Mode, choose_adapter_mode
from kmmlu_fast.evaluation.plan import EvalPlan
from kmmlu_fast.models import merging
from kmmlu_fast.models.changes import check_adapter_unchanged, check_model_unchanged

EngineOpener = Callable[[list[Adapter], int, str | None], Engine]


def make_engine_opener(plan: EvalPlan) -> EngineOpener:
    """Opens engines as the plan's config says: the user's warm engine if it gives the same answers, else one
    in this process.
    """
    from kmmlu_fast.engines import factory
    from kmmlu_fast.engines.warm.client import find_socket_folder, find_warm_engine
    from kmmlu_fast.engines.warm.identity import identify_engine

    config, model = plan.config, plan.model

    def open_engine(adapters: list[Adapter], max_model_len: int, path: str | None) -> Engine:
        def start_here() -> Engine:
            log_note(f"engine: starting {config.engine} for {Path(path or model.path).name}")
            engine = factory.open_engine(config, model, adapters, max_model_len, path)
            try:
                check_model_unchanged(model)  # also where it takes over from a warm engine
            except BaseException:
                engine.close()
                raise
            return engine

        if config.warm_engine and (folder := find_socket_folder()):
            identity = identify_engine(config, model, adapters, max_model_len, path)
            warm = find_warm_engine(identity, folder, start_here) if identity else None
            if warm is not None:
                return warm
        return start_here()

    return open_engine


def choose_leading_plan(plans: Sequence[EvalPlan]) -> EvalPlan:
    """The plan whose config opens the engine of all: the first that samples, else the first that generates
    texts, which an engine set up for less does slowly or not at all; else the first.
    """
    return max(
        plans, key=lambda plan: (plan.config.temperature > 0, plan.config.output_type != "multiple_choice")
    )


def _note_mode(adapter: Adapter, mode: Mode, reason: str) -> None:
    done = "merged into a copy with PEFT" if mode == "merge" else "written into the engine"
    log_note(f"{adapter.name}: {done}, because {reason}")


class EngineManager:
    """The open engine, for all exams. Each merged copy needs its own; other adapters share the base's."""

    def __init__(self, plan: EvalPlan, open_engine: EngineOpener) -> None:
        self.plan, self._open = plan, open_engine
        self._engine: Engine | None = None
        self._weights: str | None = None  # path of the open engine's merged copy; None for the base
        self._modes: dict[str, Mode] = {}  # by adapter name

    def mode_of(self, adapter: Adapter) -> Mode:
        if adapter.name not in self._modes:
            mode, reason = choose_adapter_mode(self.plan.config, adapter)
            self._modes[adapter.name] = mode
            if reason:
                _note_mode(adapter, mode, reason)
        return self._modes[adapter.name]

    def engine_for(self, adapter: Adapter | None) -> Engine:
        """An engine that answers as the adapter (None: the base); a served adapter goes with each request."""
        modes = {each.name: self.mode_of(each) for each in self.plan.adapters}
        mode = modes[adapter.name] if adapter else "serve"
        weights = None
        if adapter and mode == "merge":
            log_note(f"{adapter.name}: merging into the base with PEFT (cached)")
            weights = str(merging.merge_adapter(self.plan.model, adapter, self.plan.config.dtype))
        if self._engine is None or weights != self._weights:
            self.close()
            served = [each for each in self.plan.adapters if modes[each.name] == "serve"]
            self._engine, self._weights = self._open(served, self.plan.max_model_len, weights), weights
        if weights is None and "swap" in modes.values():
            return self._swap_or_merge(self._engine, adapter if mode == "swap" else None)
        return self._engine

    def _swap_or_merge(self, engine: Engine, adapter: Adapter | None) -> Engine:
        """The engine with the adapter's weights, or an engine of the merged copy if they do not fit in."""
        reason = "this engine's weights cannot be changed"
        if isinstance(engine, SwappingEngine):
            began = time.monotonic()
            try:
                engine.swap(adapter)
                check_model_unchanged(self.plan.model)  # of which the changed layers were read again
                if adapter:
                    seconds = time.monotonic() - began
                    log_note(f"{adapter.name}: written into the running engine in {seconds:.1f} s")
                return engine
            except AdapterError as error:  # the engine holds the base again
                if adapter:
                    check_adapter_unchanged(adapter)  # or its new weights would be merged instead
                reason = str(error)
        if adapter is None:
            return engine
        _note_mode(adapter, "merge", reason)
        self._modes[adapter.name] = "merge"
        return self.engine_for(adapter)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
