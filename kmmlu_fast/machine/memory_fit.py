"""Which settings a card's memory allows, and which ways of evaluating a model fit: pure functions of numbers.

In: bytes, a compute capability, a model's counts. Out: batch settings, ``MemoryOption`` records with their bytes
by part, and the one line of advice where none fits. Everything here is computed, nothing measured. Knows
nothing of torch, vLLM or the machine it runs on (``core.machine`` and ``core.nvml`` look).

What a compute capability can do is read from vLLM 0.32: ``platforms/cuda.py`` (bfloat16 from 8.0),
``quantization/online/fp8.py`` (fp8_per_channel from 8.9: it refuses the weight-only kernel;
fp8_per_tensor falls back to it, Marlin, from 7.5), ``auto_awq.py`` and ``auto_gptq.py`` (from 7.5 and
6.0). CUDA 13 begins with 7.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kmmlu_fast.machine.model_size import ModelFacts

GIB = 1024**3

OLDEST, BFLOAT16, FP8 = (7, 5), (8, 0), (8, 9)
_IN_PROCESS = ("--engine", "transformers")
GPU_SHARE = 0.90  # of the card's memory, as --gpu-memory-utilization has it by default

# Cards report less than their name says (a "24 GB" one 22 to 24 GiB, a "40 GB" one 39.4, a "48 GB" one 44.5).
_LARGE_BYTES = 36 * GIB
_MEDIUM_BYTES = 20 * GIB

_RUNTIME_BYTES = int(0.8 * GIB)  # CUDA context, cuBLAS workspaces, Triton modules
_CPU_RUNTIME_BYTES = int(1.5 * GIB)  # the libraries' own resident memory
CPU_CACHE_BYTES = 2 * GIB  # the engine's at most: every page of it is written at the start
_FOUR_BIT = 0.5 + 2.5 / 128  # AWQ, GPTQ: half a byte, and a scale and a zero for each group of 128
_NF4 = 0.5 + 1 / 64  # bitsandbytes, double quantisation (QLoRA, section 3)
# What one layer holds a token while it computes: gate and up in one, their product, six of the hidden size
# (residual, norm, query/key/value, output). Two bytes each.
_MLP_VALUES, _HIDDEN_VALUES = 3, 6
_LOGIT_BYTES = 2 + 4 + 4  # the head's output, in 32 bit, and its log-softmax


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Tokens of one engine step, and sequences alive at once."""

    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOption:
    """One way of evaluating a model: what it needs and whether that fits. Bytes a card."""

    name: str  # bfloat16, float16, float32, fp8_per_channel, fp8_per_tensor, 4-bit, nf4, as stored (awq)
    flags: tuple[str, ...]  # of kmmlu_fast.eval
    parts_bytes: dict[str, int]
    room_bytes: int
    batch: BatchSettings
    note: str = ""
    another_model: bool = False  # of another repository than the one that was asked for
    cards: int = 1

    @property
    def total_bytes(self) -> int:
        return sum(self.parts_bytes.values())

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.room_bytes

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {**asdict(self), "total_bytes": self.total_bytes, "fits": self.fits}


SMALLEST = BatchSettings(2048, 128)  # what the engine goes down to before it gives up


def settings_for_memory(total_bytes: int) -> BatchSettings:
    """The engine's batch by the card's total memory: 40 GB and over, 24 GB, and 16 GB or less."""
    if total_bytes >= _LARGE_BYTES:
        return BatchSettings(16384, 1024)
    if total_bytes >= _MEDIUM_BYTES:
        return BatchSettings(8192, 512)
    return BatchSettings(4096, 256)


def unsupported_gpu_reason(capability: tuple[int, int], name: str = "this card") -> str:
    """Why a card cannot be used at all, in one line; empty where it can."""
    if capability >= OLDEST:
        return ""
    return (
        f"{name} has compute capability {capability[0]}.{capability[1]}: the pinned set is for CUDA 13, "
        "which begins with 7.5 (so no V100, P100 or GTX 10); take a newer card, or bash scripts/setup.sh cpu"
    )


def weights_bytes(model: ModelFacts, name: str) -> int:
    """Bytes of the weights in a type: bfloat16, float16, float32, fp8_*, 4-bit, nf4, or as stored."""
    if model.quantised and name not in ("float32", "nf4"):
        return model.stored_bytes or int(model.linear * _FOUR_BIT + model.unquantised_parameters * 2)
    shrunk = {"float32": 4.0, "4-bit": _FOUR_BIT, "nf4": _NF4}.get(
        name, 1.0 if name.startswith("fp8") else 2.0
    )
    return int(model.linear * shrunk + model.unquantised_parameters * (4 if name == "float32" else 2))


def engine_bytes(model: ModelFacts, name: str, batch: BatchSettings, cards: int = 1) -> dict[str, int]:
    """What vLLM holds on each of ``cards`` cards, by part. The cache counted is that of one full step."""
    tokens, value = batch.max_num_batched_tokens, 4 if name == "float32" else 2
    layer = tokens * (_MLP_VALUES * model.intermediate / cards + _HIDDEN_VALUES * model.hidden) * value
    return {
        "weights": math.ceil(weights_bytes(model, name) / cards),
        "activations": int(layer),
        "logits": int(batch.max_num_seqs * model.vocabulary * _LOGIT_BYTES),
        "key-value cache": int(tokens * model.kv_values_per_token * value / cards),
        "runtime": _RUNTIME_BYTES,
    }


def engine_memory_budget(total_bytes: int, free_bytes: int, share: float = GPU_SHARE) -> int:
    """What the engine may take of a card: the share of the whole, and no more than is free."""
    return min(int(total_bytes * share), free_bytes)


def fitting_batch(
    model: ModelFacts, name: str, wanted: BatchSettings, space: int, cards: int = 1
) -> BatchSettings:
    """``wanted``, halved until a step fits beside the weights; the smallest where even that does not."""
    chosen = wanted
    while chosen != SMALLEST and sum(engine_bytes(model, name, chosen, cards).values()) > space:
        tokens, seqs = chosen.max_num_batched_tokens // 2, chosen.max_num_seqs // 2
        chosen = BatchSettings(max(tokens, SMALLEST.max_num_batched_tokens), max(seqs, SMALLEST.max_num_seqs))
    return chosen


def gpu_memory_options(
    model: ModelFacts, capability: tuple[int, int], total_bytes: int, free_bytes: int, cards: int = 1
) -> list[MemoryOption]:
    """The ways on a card, the most faithful first; [] where the card cannot be used at all."""
    if unsupported_gpu_reason(capability):
        return []
    largest, space = settings_for_memory(total_bytes), engine_memory_budget(total_bytes, free_bytes)

    def way(
        name: str, flags: Sequence[str] = (), note: str = "", other: bool = False, over: int = 1
    ) -> MemoryOption:
        spread = (*flags, "--tensor-parallel-size", str(over)) if over > 1 else tuple(flags)
        batch = fitting_batch(model, name, largest, space, over)
        parts = engine_bytes(model, name, batch, over)
        return MemoryOption(
            name=name,
            flags=spread,
            parts_bytes=parts,
            room_bytes=space,
            batch=batch,
            note=note,
            another_model=other,
            cards=over,
        )

    if model.quantised:
        flags = _IN_PROCESS if model.stored_as == "bitsandbytes" else ()
        return [way(f"as stored ({model.stored_as})", flags, _stored_type_note(model, capability))]
    half = "bfloat16" if capability >= BFLOAT16 else "float16"
    note = (
        ""
        if half == "bfloat16"
        else "no bfloat16 before compute capability 8.0; vLLM refuses Gemma in float16"
    )
    found = [way(half, note=note)]
    if not found[0].fits and (over := _fewest_gpus(model, half, space, cards)):
        found.append(way(half, note=f"split over {over} cards", over=over))
    if capability >= FP8:
        found.append(way("fp8_per_channel", ("--quantization", "fp8_per_channel"), "computed in fp8"))
    else:
        words = "fp8 weights computed in 16 bit; fp8_per_channel needs compute capability 8.9"
        found.append(way("fp8_per_tensor", ("--quantization", "fp8_per_tensor"), words))
    found.append(way("4-bit", note="an AWQ or GPTQ repository of it as --model", other=True))
    found.append(_nf4_option(model, fitting_batch(model, "nf4", largest, space), space))
    return found


def cpu_memory_options(model: ModelFacts, dtype: str, free_bytes: int) -> list[MemoryOption]:
    """The ways on a CPU: its fast type, and the slower in-process nf4."""
    batch = BatchSettings(2048, 64)
    parts = engine_bytes(model, dtype, batch) | {
        "key-value cache": CPU_CACHE_BYTES,
        "runtime": _CPU_RUNTIME_BYTES,
    }
    flags = () if dtype == "bfloat16" else ("--dtype", dtype)
    name = f"as stored ({model.stored_as})" if model.quantised else dtype
    note = "vLLM's CPU build takes some AWQ and GPTQ; not tried here" if model.quantised else ""
    first = MemoryOption(
        name=name,
        flags=() if model.quantised else flags,
        parts_bytes=parts,
        room_bytes=free_bytes,
        batch=batch,
        note=note,
    )
    return [first] if model.quantised else [first, _nf4_option(model, batch, free_bytes)]


def _nf4_option(model: ModelFacts, batch: BatchSettings, space: int) -> MemoryOption:
    """The in-process engine on the very base of a QLoRA adapter. Its cache is counted like vLLM's."""
    parts = engine_bytes(model, "nf4", batch)
    note = "in process, slower: the very base of a QLoRA adapter"
    return MemoryOption(
        name="nf4",
        flags=(*_IN_PROCESS, "--quantization", "nf4"),
        parts_bytes=parts,
        room_bytes=space,
        batch=batch,
        note=note,
    )


def _stored_type_note(model: ModelFacts, capability: tuple[int, int]) -> str:
    if model.stored_as == "bitsandbytes":
        return "vLLM 0.32 refuses bitsandbytes; an AWQ or GPTQ repository is faster"
    if model.stored_as in ("fp8", "compressed-tensors") and capability < FP8:
        return "fp8 weights are computed in 16 bit on this card"
    return ""


def _fewest_gpus(model: ModelFacts, name: str, space: int, cards: int) -> int:
    """The fewest cards that hold the model in halves, quarters, ...; 0 where none do (heads split evenly)."""
    sizes = [n for n in (2, 4, 8) if n <= cards and model.heads % n == 0]
    return next((n for n in sizes if sum(engine_bytes(model, name, SMALLEST, n).values()) <= space), 0)


def memory_advice(ways: Sequence[MemoryOption], model: ModelFacts) -> str:
    """One line where the model does not fit as it is: need, room, what to do. Empty where it fits."""
    if not ways or ways[0].fits:
        return ""
    first = ways[0]
    need, space = first.total_bytes / GIB, first.room_bytes / GIB
    fitting = [way for way in ways[1:] if way.fits]
    choices = [
        f"{' '.join(way.flags)} ({way.total_bytes / GIB:.1f} GiB)" for way in fitting if not way.another_model
    ]
    choices += [
        f"a 4-bit (AWQ or GPTQ) repository of it ({way.total_bytes / GIB:.1f} GiB)"
        for way in fitting
        if way.another_model
    ]
    over = first.total_bytes - first.parts_bytes["weights"]
    largest = max(0.0, (first.room_bytes - over) / 2e9)
    smaller = f"a smaller model (up to about {largest:.1f} B parameters in 16 bit)" if largest >= 0.1 else ""
    does = f"{model.name} in {first.name} needs {need:.1f} GiB of the {space:.1f} GiB that may be used"
    return f"{does}: take {', or '.join([*choices, *([smaller] if smaller else [])]) or 'a larger machine'}"
