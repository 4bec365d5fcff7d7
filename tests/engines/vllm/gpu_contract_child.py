"""What vLLM's own configuration makes of the engine's arguments on cards that are not there: run by
test_gpu_contract, in the CPU environment.

In: argv: a model directory (a config is enough: nothing is loaded), and cases as JSON. Out: one JSON object a
case on stdout. vLLM's platform is replaced by its CUDA one with a made-up card; of its compiled CUDA code,
only what the configuration asks is answered."""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any

ASKED: list[tuple[str | None, str | None]] = []  # the environment at every question for a GPU
CARD: dict[str, Any] = {}


class Captured(Exception):
    """The engine was about to load a model; what it was opened with stands in ``LLM.seen``."""


def pretend() -> Any:
    """Replace torch's and vLLM's view of the machine; returns the class that stands for ``vllm.LLM``."""
    for name in ("_C_stable_libtorch", "_moe_C_stable_libtorch", "_qutlass_C"):
        sys.modules[f"vllm.{name}"] = types.ModuleType(name)
    for name in ("_vllm_fa2_C", "_vllm_fa3_C"):
        sys.modules[f"vllm.vllm_flash_attn.{name}"] = types.ModuleType(name)
    import torch

    def is_available() -> bool:
        ASKED.append(
            (os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK"), os.environ.get("VLLM_WORKER_MULTIPROC_METHOD"))
        )
        return True

    torch.cuda.is_available = is_available
    torch.version.cuda = "13.0"
    import vllm.platforms as platforms
    from vllm.platforms.cuda import NvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability
    from vllm.third_party import pynvml

    pynvml.nvmlInit = pynvml.nvmlShutdown = lambda *_: None

    class Card(NvmlCudaPlatform):
        """vLLM's CUDA platform, answering from CARD."""

        get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(*CARD["capability"]))
        get_device_name = classmethod(lambda cls, device_id=0: CARD["name"])
        get_device_total_memory = classmethod(lambda cls, device_id=0: CARD["bytes"])
        get_device_uuid = classmethod(lambda cls, device_id=0: "GPU-0")
        device_count = classmethod(lambda cls: 1)
        num_compute_units = classmethod(lambda cls, device_id=0: 128)
        log_warnings = classmethod(lambda cls: None)

    platforms._current_platform = Card()  # before anything of vLLM takes the platform by name
    import vllm
    import vllm._custom_ops as ops
    import vllm.config.vllm as configuration
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    ops.cutlass_scaled_mm_supports_fp8 = lambda capability: capability >= 89
    ops.cutlass_scaled_mm_supports_block_fp8 = ops.cutlass_group_gemm_supported = lambda capability: (
        capability >= 90
    )
    configuration.HAS_TRITON = True

    class LLM:
        seen: Any = None

        def __init__(self, **arguments: Any) -> None:
            LLM.seen = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
            raise Captured

    vllm.LLM = LLM
    return LLM


def resolve(model: str, case: dict[str, Any], llm: Any) -> dict[str, Any]:
    """What vLLM resolves for one case, or the error that a user would see."""
    from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine
    from kmmlu_fast.machine import gpus

    capability, gib = tuple(case["capability"]), case["gib"]
    CARD.update(capability=capability, name=case["name"], bytes=gib << 30)
    here = gpus.Gpu(
        name=case["name"],
        capability=capability,
        total_bytes=gib << 30,
        free_bytes=(gib << 30) - (500 << 20),
        driver="580.95.05",
    )
    gpus.list_gpus = lambda: [here]
    llm.seen = None
    settings = EngineSettings(model=model, load_format="dummy", **{"max_model_len": 1024, **case["settings"]})
    try:
        VllmEngine(settings)
    except Exception as error:
        if llm.seen is None:
            return {"error": f"{type(error).__name__}: {error}", "cause": repr(error.__cause__)}
    config = llm.seen
    compilation, lora = config.compilation_config, config.lora_config
    return {
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "head_dtype": str(config.model_config.head_dtype).removeprefix("torch."),
        "quantization": config.model_config.quantization,
        "eager": config.model_config.enforce_eager,
        "graphs": len(compilation.cudagraph_capture_sizes or []),
        "tokens": config.scheduler_config.max_num_batched_tokens,
        "seqs": config.scheduler_config.max_num_seqs,
        "lora_rank": lora and lora.max_lora_rank,
        "adapters_kept": lora and lora.max_cpu_loras,
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "kernel": find_kernel(config, case["settings"].get("quantization")),
        "attention_asked": getattr(config.attention_config.backend, "name", None),
        "autotune": config.kernel_config.enable_flashinfer_autotune,
        "sampler": os.environ.get("VLLM_USE_FLASHINFER_SAMPLER"),
        "ready_timeout": os.environ.get("VLLM_ENGINE_READY_TIMEOUT_S"),
    }


def find_kernel(config: Any, quantization: str | None) -> str | None:
    """vLLM's choice of the fp8 product; with FlashInfer there, as in an image with nvcc."""
    import fake_card.resolve as by_hand
    import vllm.model_executor.kernels.linear.scaled_mm.flashinfer as flashinfer

    flashinfer.has_flashinfer = lambda: True
    return by_hand.find_fp8_kernel(config, quantization)


def main() -> None:
    model, cases = sys.argv[1], json.loads(sys.argv[2])
    llm = pretend()
    outcomes = [resolve(model, case, llm) for case in cases]
    print(json.dumps({"cases": outcomes, "asked": ASKED}))


if __name__ == "__main__":
    main()
