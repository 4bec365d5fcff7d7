"""How an adapter reaches the engine: served with the base, written into it (swap), or merged into a copy.

In: an ``EvalConfig`` and an adapter. Out: the mode, and the reason if it is not the preferred one. Knows
nothing of vLLM.
"""

from __future__ import annotations

from typing import Literal

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.adapters import adapter_way_problem

Mode = Literal["serve", "swap", "merge"]


def adapter_loading_mode(config: EvalConfig) -> str:
    """The mode for ``load_adapters``, by who applies the adapters and what may be done instead."""
    engine = find_engine_kind(config.engine)
    if engine.applies_adapters and not engine.loads_with_peft:
        return "server"
    if not engine.loads_with_peft or config.adapter_mode == "merge":
        return config.adapter_mode
    return "peft or merge" if _may_merge(config) else "peft"


def _may_merge(config: EvalConfig) -> bool:
    """Whether an engine that applies adapters with PEFT may get a merged copy instead: merging would round
    a 4-bit base."""
    return config.adapter_mode == "auto" and not config.quantization


def choose_adapter_mode(config: EvalConfig, adapter: Adapter) -> tuple[Mode, str]:
    """The adapter's mode, and the reason if it is not the preferred one (else "").

    auto: serve on a GPU, by a server and by transformers (PEFT); swap on a CPU, whose LoRA kernels are slow;
    merge what these do not apply as PEFT does. ConfigError for a mode that the engine does not have.
    """
    engine, mode = find_engine_kind(config.engine), config.adapter_mode
    if mode in engine.refused_adapter_modes:
        raise ConfigError(f"--adapter-mode {mode} {engine.refused_adapter_modes[mode]}")
    if mode in ("serve", "merge"):
        return mode, ""
    if engine.applies_adapters:
        by_peft = engine.loads_with_peft and _may_merge(config)
        reason = adapter_way_problem(adapter.path, "unmerged") if by_peft else None
        return ("merge", reason) if reason else ("serve", "")
    reason = None
    if mode == "auto" and engine.on_gpu(config):
        reason = adapter_way_problem(adapter.path, "serve")
        if not reason:
            return "serve", ""
    problem = engine.swap_problem(config) or adapter_way_problem(adapter.path, "swap")
    return ("merge", reason or problem) if problem else ("swap", reason or "")
