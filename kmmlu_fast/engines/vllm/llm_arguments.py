"""The arguments of vLLM's ``LLM``: what is always so, what was chosen for the device, and what adapters need.

In: ``EngineSettings`` and what ``arguments`` chose. Out: keyword arguments; EngineError for a rank that
vLLM does not take. Knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.engines.vllm.cpu_kernels import WORTH_COMPILING, register_fused_norms
from kmmlu_fast.engines.vllm.device_arguments import EngineSettings as EngineSettings
from kmmlu_fast.engines.vllm.late_tokenizer import can_defer_tokenizer
from kmmlu_fast.engines.vllm.weight_swap import WORKER
from kmmlu_fast.machine.device import resolve_auto_dtype

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values vLLM accepts for max_lora_rank


def llm_arguments(settings: EngineSettings, chosen: dict[str, Any], on_card: bool) -> dict[str, Any]:
    """Everything ``LLM`` is made with; ``chosen``: of ``card_arguments`` or ``cpu_arguments``."""
    arguments: dict[str, Any] = {
        "model": settings.model,
        "revision": settings.revision,
        "tokenizer": settings.tokenizer or settings.model,
        "dtype": resolve_auto_dtype(None)[0] if settings.dtype == "auto" and not on_card else settings.dtype,
        "quantization": settings.quantization,
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "load_format": settings.load_format,
        "seed": settings.seed,
        "enable_prefix_caching": True,
        # sliding windows (Gemma): found again by the second request, not the third
        "prefix_cache_retention_interval": None,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "generation_config": "vllm",  # the model's own sampling defaults must not decide a benchmark
    }
    arguments |= chosen
    if settings.letter_precision == "float32":
        arguments["hf_overrides"] = {"head_dtype": "float32"}
    if not on_card:
        # vLLM's own block on CPU is 128 tokens, and a prefix is found again in whole blocks only:
        # five-shot, a tenth of the pass.
        arguments |= {"enforce_eager": True, "block_size": 32, **register_fused_norms(WORTH_COMPILING)}
    arguments |= _lora_arguments(settings)
    arguments |= {
        "worker_extension_cls": WORKER,
        "skip_tokenizer_init": can_defer_tokenizer(settings.model, settings.revision),
    }
    return arguments | dict(settings.extra)


def _lora_arguments(settings: EngineSettings) -> dict[str, Any]:
    if not settings.max_lora_rank:
        return {}
    rank = next((r for r in _RANKS if r >= settings.max_lora_rank), None)
    if rank is None:
        raise EngineError(
            f"adapter rank {settings.max_lora_rank} is over vLLM's {_RANKS[-1]}; use --adapter-mode merge"
        )
    return {
        "enable_lora": True,
        "max_lora_rank": rank,
        "max_loras": 1,
        "max_cpu_loras": max(1, settings.num_adapters),
    }
