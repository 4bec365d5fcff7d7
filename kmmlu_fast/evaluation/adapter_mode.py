"""How an adapter reaches the engine: served with the base, written into it (swap), or merged into a copy.

In: an ``EvalConfig`` and an adapter. Out: the mode, and the reason if it is not the preferred one. Knows
nothing of vLLM.
"""

from __future__ import annotations

from typing import Literal

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.deltas import unsupported_adapter_reason

Mode = Literal["serve", "swap", "merge"]


def adapter_loading_mode(config: EvalConfig) -> str:
    """The mode for ``load_adapters``: "peft" if transformers applies the adapters, which allows any kind."""
    by_peft = config.engine == "transformers" and config.adapter_mode != "merge"
    return "peft" if by_peft else config.adapter_mode


def choose_adapter_mode(config: EvalConfig, adapter: Adapter) -> tuple[Mode, str]:
    """The adapter's mode, and the reason if it is merged instead of swapped (else "").

    auto: serve on a GPU, by a server and by transformers (PEFT); swap on a CPU, whose LoRA kernels are slow.
    ConfigError for a mode that the engine does not have.
    """
    mode = config.adapter_mode
    if config.engine == "server" and mode in ("merge", "swap"):
        raise ConfigError(
            f"--adapter-mode {mode} does not go with --engine server: the server applies the adapters; use"
            " serve"
        )
    if config.engine == "transformers" and mode == "swap":
        raise ConfigError(
            "--adapter-mode swap goes with vLLM: --engine transformers applies adapters unmerged; use serve"
        )
    if mode == "auto":
        from kmmlu_fast.machine.device import has_gpu

        mode = "serve" if config.engine in ("server", "transformers") or has_gpu() else "swap"
    if mode != "swap":
        return mode, ""
    if config.engine != "vllm" or config.data_parallel_size > 1:
        return "merge", "weights can be written only into a single vLLM engine in this process"
    if config.load_format == "dummy":
        return "merge", "random weights are not in a file"
    reason = unsupported_adapter_reason(adapter.path)
    return ("merge", reason) if reason else ("swap", "")
