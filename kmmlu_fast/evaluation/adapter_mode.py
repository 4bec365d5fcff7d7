"""How an adapter reaches the engine: served with the base, written into it (swap), or merged into a copy.

In: an ``EvalConfig`` and an adapter. Out: the mode, and the reason if it is not the preferred one. Knows
nothing of vLLM.
"""

from __future__ import annotations

from typing import Literal

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.adapters import adapter_way_problem

Mode = Literal["serve", "swap", "merge"]


def adapter_loading_mode(config: EvalConfig) -> str:
    """The mode for ``load_adapters``, by who applies the adapters and what may be done instead."""
    if config.engine == "server":
        return "server"
    if config.engine != "transformers" or config.adapter_mode == "merge":
        return config.adapter_mode
    return "peft or merge" if _may_merge(config) else "peft"


def _may_merge(config: EvalConfig) -> bool:
    """Whether the transformers engine may be given a merged copy: merging would round a 4-bit base."""
    return config.adapter_mode == "auto" and not config.quantization


def choose_adapter_mode(config: EvalConfig, adapter: Adapter) -> tuple[Mode, str]:
    """The adapter's mode, and the reason if it is not the preferred one (else "").

    auto: serve on a GPU, by a server and by transformers (PEFT); swap on a CPU, whose LoRA kernels are slow;
    merge what these do not apply as PEFT does. ConfigError for a mode that the engine does not have.
    """
    mode = config.adapter_mode
    if config.engine == "server":
        if mode in ("merge", "swap"):
            raise ConfigError(
                f"--adapter-mode {mode} does not go with --engine server: the server applies the adapters;"
                " use serve"
            )
        return "serve", ""
    if config.engine == "transformers":
        return _choose_transformers_mode(config, adapter)
    if mode in ("serve", "merge"):
        return mode, ""
    reason = ""
    if mode == "auto":
        from kmmlu_fast.machine.device import has_gpu

        if has_gpu():
            reason = adapter_way_problem(adapter.path, "serve") or ""
            if not reason:
                return "serve", ""
    problem = _swap_problem(config, adapter)
    return ("merge", reason or problem) if problem else ("swap", reason)


def _choose_transformers_mode(config: EvalConfig, adapter: Adapter) -> tuple[Mode, str]:
    mode = config.adapter_mode
    if mode == "swap":
        raise ConfigError(
            "--adapter-mode swap goes with vLLM: --engine transformers applies adapters unmerged; use serve"
        )
    if mode == "merge":
        return "merge", ""
    reason = adapter_way_problem(adapter.path, "unmerged") if _may_merge(config) else None
    return ("merge", reason) if reason else ("serve", "")


def _swap_problem(config: EvalConfig, adapter: Adapter) -> str:
    if config.engine != "vllm" or config.data_parallel_size > 1:
        return "weights can be written only into a single vLLM engine in this process"
    if config.load_format == "dummy":
        return "random weights are not in a file"
    return adapter_way_problem(adapter.path, "swap") or ""
