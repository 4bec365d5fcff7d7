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
from kmmlu_fast.models.deltas import unsupported_adapter_reason

Mode = Literal["serve", "swap", "merge"]


def adapter_loading_mode(config: EvalConfig) -> str:
    """The mode for ``load_adapters``: "peft" if transformers applies the adapters, which allows any kind."""
    by_peft = find_engine_kind(config.engine).loads_with_peft and config.adapter_mode != "merge"
    return "peft" if by_peft else config.adapter_mode


def choose_adapter_mode(config: EvalConfig, adapter: Adapter) -> tuple[Mode, str]:
    """The adapter's mode, and the reason if it is merged instead of swapped (else "").

    auto: serve on a GPU, by a server and by transformers (PEFT); swap on a CPU, whose LoRA kernels are slow.
    ConfigError for a mode that the engine does not have.
    """
    engine, mode = find_engine_kind(config.engine), config.adapter_mode
    if mode in engine.refused_adapter_modes:
        raise ConfigError(f"--adapter-mode {mode} {engine.refused_adapter_modes[mode]}")
    if mode == "auto":
        from kmmlu_fast.machine.device import has_gpu

        mode = "serve" if engine.applies_adapters or has_gpu() else "swap"
    if mode != "swap":
        return mode, ""
    reason = engine.swap_problem(config) or unsupported_adapter_reason(adapter.path)
    return ("merge", reason) if reason else ("swap", "")
