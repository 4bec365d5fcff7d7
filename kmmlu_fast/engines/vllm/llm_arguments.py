"""The arguments of vLLM's ``LLM``: fixed ones, those chosen for the device, and those for adapters.

In: ``EngineSettings`` and the choices of ``device_arguments``. Out: keyword arguments; EngineError for
adapters that vLLM does not take. Knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.engines.vllm.compiled_mode import compiled_arguments
from kmmlu_fast.engines.vllm.cpu_kernels import WORTH_COMPILING, register_fused_norms
from kmmlu_fast.engines.vllm.device_arguments import EngineSettings
from kmmlu_fast.engines.vllm.late_tokenizer import can_defer_tokenizer
from kmmlu_fast.engines.vllm.weight_swap import WORKER
from kmmlu_fast.machine.device import resolve_auto_dtype
from kmmlu_fast.machine.model_size import find_model_facts

# Adapters kept in host memory beside the one in a batch: a hundred of rank 64 on a 7B would take 32 GB. vLLM
# reads the others from their files again.
_SPARE_ADAPTERS = 2
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values vLLM accepts for max_lora_rank


def llm_arguments(settings: EngineSettings, chosen: dict[str, Any], on_gpu: bool) -> dict[str, Any]:
    """All arguments of ``LLM``; ``chosen``: from ``gpu_arguments`` or ``cpu_arguments``."""
    dtype = settings.dtype
    if dtype == "auto" and not on_gpu:
        dtype = resolve_auto_dtype(None)[0]
    arguments: dict[str, Any] = {
        "model": settings.model,
        "revision": settings.revision,
        "tokenizer": settings.tokenizer or settings.model,
        "dtype": dtype,
        "quantization": settings.quantization,
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "load_format": settings.load_format,
        "seed": settings.seed,
        "enable_prefix_caching": True,
        # with sliding windows (Gemma), the second request already hits the cache, not only the third
        "prefix_cache_retention_interval": None,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "generation_config": "vllm",  # a benchmark must not depend on the model's sampling defaults
        "worker_extension_cls": WORKER,
        "skip_tokenizer_init": can_defer_tokenizer(settings.model, settings.revision),
    }
    arguments |= chosen
    if settings.letter_precision == "float32":
        arguments["hf_overrides"] = {"head_dtype": "float32"}
    if not on_gpu:
        # vLLM's CPU default is 128 tokens, and it reuses whole blocks of a prefix only: with five shots that
        # costs a tenth of the pass.
        arguments["block_size"] = 32
        if settings.compiled:
            arguments |= compiled_arguments()
        else:
            arguments |= {"enforce_eager": True, **register_fused_norms(WORTH_COMPILING)}
    return arguments | lora_arguments(settings, on_gpu) | dict(settings.extra)


def lora_arguments(settings: EngineSettings, on_gpu: bool) -> dict[str, Any]:
    """The arguments for adapters; {} without any."""
    if not settings.max_lora_rank:
        return {}
    rank = next((rank for rank in _RANKS if rank >= settings.max_lora_rank), None)
    if rank is None:
        raise EngineError(
            f"adapter rank {settings.max_lora_rank} is above vLLM's maximum of {_RANKS[-1]}; use"
            " --adapter-mode merge"
        )
    facts = None if on_gpu else find_model_facts(settings.model, offline=True)
    if facts is not None and facts.experts:
        raise EngineError(
            "vLLM serves adapters of a mixture of experts on a GPU only (its kernels need Triton); use"
            " --adapter-mode swap or merge"
        )
    return {
        "enable_lora": True,
        "max_lora_rank": rank,
        "max_loras": 1,
        "max_cpu_loras": max(1, min(settings.num_adapters, 1 + _SPARE_ADAPTERS)),
    }
