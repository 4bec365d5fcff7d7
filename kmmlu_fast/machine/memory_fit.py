"""Which settings a card's memory allows, and which ways of evaluating a model fit: pure functions of numbers.

In: bytes, a compute capability, a model's counts. Out: batch settings, ``MemoryOption`` records with their
bytes by part, and one line of advice if the model does not fit. Everything is computed, nothing measured.
Knows nothing of torch, vLLM or the machine it runs on (``machine.host`` and ``machine.gpus`` read that).

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
from kmmlu_fast.machine.setup_commands import setup_command

GIB = 1024**3

OLDEST, BFLOAT16, FP8 = (7, 5), (8, 0), (8, 9)
_CONSUMER_BLACKWELL = 12  # major compute capability: RTX 50, RTX PRO 6000
_IN_PROCESS = ("--engine", "transformers")
GPU_SHARE = 0.90  # of the card's memory: the default of --gpu-memory-utilization

# Cards report less than their name says (a "24 GB" one 22 to 24 GiB, a "40 GB" one 39.4, a "48 GB" one 44.5).
_LARGE_BYTES = 36 * GIB
_MEDIUM_BYTES = 20 * GIB

_RUNTIME_BYTES = int(0.8 * GIB)  # CUDA context, cuBLAS workspaces, Triton modules
_CPU_RUNTIME_BYTES = int(1.5 * GIB)  # the libraries' own resident memory
CPU_CACHE_BYTES = 2 * GIB  # the engine's maximum: every page of it is written at the start
_FOUR_BIT = 0.5 + 2.5 / 128  # AWQ, GPTQ: half a byte, plus a scale and a zero per group of 128
_NF4 = 0.5 + 1 / 64  # bitsandbytes, double quantisation (QLoRA, section 3)
# Values per token in one layer while it computes: gate and up together, their product, six of the hidden size
# (residual, norm, query/key/value, output). Two bytes each.
_MLP_VALUES, _HIDDEN_VALUES = 3, 6
_LOGIT_BYTES = 2 + 4 + 4  # the head's output, its 32-bit copy, and the log-softmax


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Tokens in one engine step, and sequences processed at once."""

    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOption:
    """One way of evaluating a model: what it needs and whether that fits. Bytes per card."""

    name: str  # bfloat16, float16, float32, fp8_per_channel, fp8_per_tensor, 4-bit, nf4, as stored (awq)
    flags: tuple[str, ...]  # of kmmlu_fast.eval
    parts_bytes: dict[str, int]
    room_bytes: int
    batch: BatchSettings
    note: str = ""
    another_model: bool = False  # needs another repository than the requested one
    cards: int = 1

    @property
    def total_bytes(self) -> int:
        return sum(self.parts_bytes.values())

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.room_bytes

    def to_json(self) -> dict[str, Any]:
        """All fields in plain types."""
        return {**asdict(self), "total_bytes": self.total_bytes, "fits": self.fits}


SMALLEST = BatchSettings(2048, 128)  # the engine's last attempt before it gives up


def settings_for_memory(total_bytes: int) -> BatchSettings:
    """The engine's batch by the card's total memory: 40 GB and over, 24 GB, and 16 GB or less."""
    if total_bytes >= _LARGE_BYTES:
        return BatchSettings(16384, 1024)
    if total_bytes >= _MEDIUM_BYTES:
        return BatchSettings(8192, 512)
    return BatchSettings(4096, 256)


def unsupported_gpu_reason(capability: tuple[int, int], name: str = "this card") -> str:
    """Why a card cannot be used at all, in one line; empty if it can."""
    if capability >= OLDEST:
        return ""
    return (
        f"{name} has compute capability {capability[0]}.{capability[1]}: the pinned set is for CUDA 13, "
        f"which needs 7.5 (so no V100, P100 or GTX 10); use a newer card, or {setup_command('cpu')}"
    )


def first_start_note(capability: tuple[int, int], name: str) -> str:
    """What takes long at the first start on such a card, in words; empty if nothing does."""
    if capability[0] != _CONSUMER_BLACKWELL:
        return ""
    return (
        f"{name}: vLLM's FlashAttention has no machine code for compute capability {capability[0]}, so the"
        " driver compiles it at the first start (minutes, not measured) and keeps it in ~/.nv/ComputeCache"
    )


def weights_bytes(model: ModelFacts, name: str) -> int:
    """Bytes of the weights in a type: bfloat16, float16, float32, fp8_*, 4-bit, nf4, or as stored."""
    if model.quantised and name not in ("float32", "nf4"):
        return model.stored_bytes or int(model.linear * _FOUR_BIT + model.unquantised_parameters * 2)
    default = 1.0 if name.startswith("fp8") else 2.0
    linear_bytes = {"float32": 4.0, "4-bit": _FOUR_BIT, "nf4": _NF4}.get(name, default)
    return int(model.linear * linear_bytes + model.unquantised_parameters * (4 if name == "float32" else 2))


def engine_bytes(model: ModelFacts, name: str, batch: BatchSettings, cards: int = 1) -> dict[str, int]:
    """vLLM's memory on each of ``cards`` cards, by part. The cache is counted for one full step."""
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
    """What the engine may use of a card: the share of the whole, at most what is free."""
    return min(int(total_bytes * share), free_bytes)


def fitting_batch(
    model: ModelFacts, name: str, wanted: BatchSettings, space: int, cards: int = 1
) -> BatchSettings:
    """``wanted``, halved until a step fits beside the weights; SMALLEST if none does."""
    batch = wanted
    while batch != SMALLEST and sum(engine_bytes(model, name, batch, cards).values()) > space:
        tokens, seqs = batch.max_num_batched_tokens // 2, batch.max_num_seqs // 2
        batch = BatchSettings(max(tokens, SMALLEST.max_num_batched_tokens), max(seqs, SMALLEST.max_num_seqs))
    return batch


def gpu_memory_options(
    model: ModelFacts,
    capability: tuple[int, int],
    total_bytes: int,
    free_bytes: int,
    cards: int = 1,
    *,
    split_bytes: int | None = None,
) -> list[MemoryOption]:
    """The ways on a card, the most faithful first; [] if the card cannot be used at all.

    ``split_bytes``: what the engine may use of the one of ``cards`` that has least, if that is another.
    """
    if unsupported_gpu_reason(capability):
        return []
    largest, space = settings_for_memory(total_bytes), engine_memory_budget(total_bytes, free_bytes)

    def option(
        name: str, *flags: str, note: str = "", another_model: bool = False, split: int = 1
    ) -> MemoryOption:
        room = space if split == 1 or split_bytes is None else min(space, split_bytes)
        batch = fitting_batch(model, name, largest, room, split)
        return MemoryOption(
            name=name,
            flags=flags,
            parts_bytes=engine_bytes(model, name, batch, split),
            room_bytes=room,
            batch=batch,
            note=note,
            another_model=another_model,
            cards=split,
        )

    if model.quantised:
        flags = _IN_PROCESS if model.stored_as == "bitsandbytes" else ()
        return [option(f"as stored ({model.stored_as})", *flags, note=_stored_type_note(model, capability))]
    if capability >= BFLOAT16:
        half, note = "bfloat16", ""
    else:
        half, note = "float16", "no bfloat16 before compute capability 8.0; vLLM refuses Gemma in float16"
    options = [option(half, note=note)]
    if not options[0].fits and (split := _fewest_gpus(model, half, min(space, split_bytes or space), cards)):
        flags = ("--tensor-parallel-size", str(split))
        options.append(option(half, *flags, note=f"split over {split} cards", split=split))
    if capability >= FP8:
        options.append(option("fp8_per_channel", "--quantization", "fp8_per_channel", note="computed in fp8"))
    else:
        note = "fp8 weights computed in 16 bit; fp8_per_channel needs compute capability 8.9"
        options.append(option("fp8_per_tensor", "--quantization", "fp8_per_tensor", note=note))
    options.append(option("4-bit", note="an AWQ or GPTQ version of it as --model", another_model=True))
    options.append(_nf4_option(model, fitting_batch(model, "nf4", largest, space), space))
    return options


def cpu_memory_options(model: ModelFacts, dtype: str, free_bytes: int) -> list[MemoryOption]:
    """The ways on a CPU: its fast type, and the slower in-process nf4."""
    batch = BatchSettings(2048, 64)
    parts = engine_bytes(model, dtype, batch)
    parts |= {"key-value cache": CPU_CACHE_BYTES, "runtime": _CPU_RUNTIME_BYTES}
    name, note = dtype, ""
    flags = () if dtype == "bfloat16" else ("--dtype", dtype)
    if model.quantised:
        name, note = f"as stored ({model.stored_as})", "vLLM's CPU build takes some AWQ and GPTQ; not tested"
        flags = ()
    first = MemoryOption(
        name=name, flags=flags, parts_bytes=parts, room_bytes=free_bytes, batch=batch, note=note
    )
    return [first] if model.quantised else [first, _nf4_option(model, batch, free_bytes)]


def _nf4_option(model: ModelFacts, batch: BatchSettings, space: int) -> MemoryOption:
    """The in-process engine on the exact base of a QLoRA adapter. Its cache is counted like vLLM's."""
    return MemoryOption(
        name="nf4",
        flags=(*_IN_PROCESS, "--quantization", "nf4"),
        parts_bytes=engine_bytes(model, "nf4", batch),
        room_bytes=space,
        batch=batch,
        note="in process, slower: the exact base of a QLoRA adapter",
    )


def _stored_type_note(model: ModelFacts, capability: tuple[int, int]) -> str:
    if model.stored_as == "bitsandbytes":
        return "vLLM 0.32 refuses bitsandbytes; an AWQ or GPTQ repository is faster"
    if model.stored_as in ("fp8", "compressed-tensors") and capability < FP8:
        return "fp8 weights are computed in 16 bit on this card"
    return ""


def _fewest_gpus(model: ModelFacts, name: str, space: int, cards: int) -> int:
    """The fewest cards (2, 4 or 8, which split the heads evenly) that hold the model; 0 if none do."""
    sizes = [n for n in (2, 4, 8) if n <= cards and model.heads % n == 0]
    return next((n for n in sizes if sum(engine_bytes(model, name, SMALLEST, n).values()) <= space), 0)


def memory_advice(options: Sequence[MemoryOption], model: ModelFacts) -> str:
    """One line if the model does not fit as it is: need, room, what to do. Empty if it fits."""
    if not options or options[0].fits:
        return ""
    first = options[0]
    need, space = first.total_bytes / GIB, first.room_bytes / GIB
    choices = []
    # Other settings of this model first, then other models.
    for option in sorted(options[1:], key=lambda option: option.another_model):
        if option.fits:
            what = "a 4-bit (AWQ or GPTQ) version of it" if option.another_model else " ".join(option.flags)
            choices.append(f"{what} ({option.total_bytes / GIB:.1f} GiB)")
    besides_weights = first.total_bytes - first.parts_bytes["weights"]
    largest = (first.room_bytes - besides_weights) / 2e9
    if largest >= 0.1:
        choices.append(f"a smaller model (up to about {largest:.1f} B parameters in 16 bit)")
    what_to_do = ", or ".join(choices) or "a larger machine"
    needs = f"{model.name} in {first.name} needs {need:.1f} GiB of the {space:.1f} GiB that may be used"
    return f"{needs}: use {what_to_do}"
