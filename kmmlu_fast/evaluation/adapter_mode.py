"""How an adapter reaches the engine: served beside the base, written into it (swap), or merged into a copy of
the model.

In: an ``EvalConfig`` and an adapter. Out: the mode, and a note where it is not the one that was asked for.
Knows nothing of vLLM.
"""

from __future__ import annotations

from typing import Literal

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.deltas import unsupported_adapter_reason

Mode = Literal["serve", "swap", "merge"]


def choose_adapter_mode(config: EvalConfig, adapter: Adapter) -> tuple[Mode, str]:
    """The adapter's mode, and why it is merged although it might have been swapped ("" otherwise).

    auto: served on a GPU, by a server and by transformers (PEFT); on a CPU, whose LoRA kernels are slow,
    swapped. ConfigError for modes that a server or transformers has not.
    """
    wanted = config.adapter_mode
    if config.engine == "server" and wanted in ("merge", "swap"):
        raise ConfigError(
            f"--adapter-mode {wanted} does not go with --engine server: the server applies the adapters; use"
            " serve"
        )
    if config.engine == "transformers" and wanted == "swap":
        raise ConfigError(
            "--adapter-mode swap goes with vLLM: --engine transformers applies adapters unmerged; use serve"
        )
    if wanted == "auto":
        from kmmlu_fast.machine.device import has_gpu

        wanted = "serve" if config.engine in ("server", "transformers") or has_gpu() else "swap"
    if wanted != "swap":
        return wanted, ""
    if config.engine != "vllm" or config.data_parallel_size > 1:
        return "merge", "only one vLLM engine in this process can be written into"
    if config.load_format == "dummy":
        return "merge", "random weights are in no file"
    reason = unsupported_adapter_reason(adapter.path)
    return ("merge", reason) if reason else ("swap", "")
