"""Which of vLLM's kernels a GPU uses, so that none is compiled for minutes when the engine starts.

In: a ``Gpu``, the model's name and counts. Out: environment variables and engine arguments. vLLM 0.32
prefers FlashInfer for sampling, for fp8 products and attention on compute capability 10, and tunes its
kernels from 9.0 on. FlashInfer compiles them with nvcc at the first start unless its precompiled packages are
installed, which the pinned set leaves out. Without them vLLM's own kernels do the work. Knows nothing
of memory.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.machine import model_size, packages
from kmmlu_fast.machine.gpus import Gpu
from kmmlu_fast.machine.model_size import ModelFacts

_FLASHINFER_FP8 = "FlashInferFP8ScaledMMLinearKernel"
_BLACKWELL_SERVER = 10  # major compute capability: B200, B300
_FLASH_ATTENTION_WIDTH = 256  # the widest head of FlashAttention 2

# vLLM waits for its engine process: 600 s by default, which 140 GB from a network disk exceed.
_READY_SEC = 600
_READ_BYTES_PER_SEC = 100e6


def gpu_environment(model: str = "") -> dict[str, str]:
    """vLLM's environment variables on a GPU for a model's directory or id; the user's own take precedence."""
    variables = {
        "VLLM_WSL2_ENABLE_PIN_MEMORY": "1",  # read in WSL 2 only, where vLLM's default is slower copies
        "VLLM_ENGINE_READY_TIMEOUT_S": str(ready_timeout_sec(model)),
    }
    if packages.flashinfer_state() != "precompiled":
        variables |= {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_DISABLED_KERNELS": _FLASHINFER_FP8}
    return variables


def ready_timeout_sec(name: str) -> int:
    """Seconds that vLLM may take to start: its own default, and the time to read the weights slowly."""
    model = model_size.find_model_facts(name, offline=True) if name else None
    if model is None:
        return _READY_SEC
    stored = model.stored_bytes or 2 * model.parameters
    return _READY_SEC + int(stored / _READ_BYTES_PER_SEC)


def kernel_arguments(gpu: Gpu, model: ModelFacts | None) -> dict[str, Any]:
    """vLLM arguments that keep FlashInfer from compiling; {} if its kernels are precompiled."""
    if packages.flashinfer_state() == "precompiled":
        return {}
    arguments: dict[str, Any] = {"enable_flashinfer_autotune": False}
    width = model.head_dim if model else 0
    if gpu.capability[0] == _BLACKWELL_SERVER and 0 < width <= _FLASH_ATTENTION_WIDTH and width % 8 == 0:
        arguments["attention_backend"] = "FLASH_ATTN"
    return arguments
