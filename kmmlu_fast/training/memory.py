"""Will training fit, and with which micro-batch: estimated before any weight is read.

In: a ``ModelShape``, sequence length, batch, free device memory. Out: a ``MemoryPlan`` (bytes by part,
micro-batch, accumulation), or a TrainError that says what to change. Knows nothing of data. Every constant
names its source; the adapter's card records the measured peak beside the estimate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.machine.device_memory import GIB
from kmmlu_fast.training.label_loss import LOGIT_BYTES, logit_chunk_rows
from kmmlu_fast.training.model_shape import ModelShape

_HEADROOM = 0.92  # of the free memory: the caching allocator's fragmentation takes the rest
# If all layers' activations are kept: counted from Unsloth's source, not yet measured on a GPU.
_KEEPING_HEADROOM = 0.80

# QLoRA (Dettmers et al. 2023, section 3): nf4 is half a byte, plus one absmax per 64 weights, quantised to
# one byte with one float32 per 256 of them ("double quantisation").
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_HALF_BYTES = 2  # embeddings, norms, lm_head: bitsandbytes leaves them in bfloat16 / float16
# Unsloth keeps LoRA weights, and so their gradients, in float32 (prepare_model_for_training).
_LORA_BYTES = 4 + 4
# bitsandbytes 8-bit Adam: two states of one byte and one float32 absmax per 256 each (Dettmers et al. 2021);
# torch's states are float32.
_ADAM_BYTES = {"8bit": 2 * (1 + 4 / 256), "32bit": 8.0}
# One decoder layer while it is recomputed and differentiated ("unsloth" checkpointing keeps no other): values
# per token alive at once, counted in Unsloth's fused LoRA MLP (gate, up, act and their three gradients) and
# attention (q, k, v, out, residual, norm + gradients).
_MLP_VALUES = 6
_ATTENTION_VALUES = 12
# Without checkpointing each layer keeps for its backward pass: gate and up (Unsloth's fused LoRA MLP), and of
# the hidden size the residual and the norm's output twice, q, k, v, the attention's output and its product.
_KEPT_MLP_VALUES = 2
_KEPT_HIDDEN_VALUES = 9
# A micro-batch of so many tokens fills a GPU: a larger one gains less than not computing every layer twice (a
# third of a step).
_FULL_TOKENS = 2048
# On a CPU the stock, unfused modules run, with float32 copies: nine times as much. Fitted to Gemma 3 270M
# (peak 3.07 GiB at 16 rows of 101 tokens and 5.88 GiB at 16 of 462; the estimate is 3.5 and 5.7).
_CPU_ACTIVATIONS = 9
# What such a layer keeps if it is not recomputed, relative to the same count. Fitted to Gemma 3 270M in
# bfloat16 (a step's memory rose by 0.53 GiB at 512 tokens and 1.92 at 2,048; the estimate is 0.58 and 2.3).
_CPU_KEPT = 1.2
# CUDA context, cuBLAS workspaces, bitsandbytes and Triton modules: outside torch's allocator.
_CONTEXT_BYTES = int(0.6 * GIB)
_CPU_RUNTIME_BYTES = int(1.0 * GIB)  # the libraries' own resident memory


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes by part for one micro-batch; ``available_bytes``: free on the device, or the user's limit."""

    micro_batch: int
    accumulation: int
    seq_length: int
    parts_bytes: dict[str, int]
    available_bytes: int
    device: str
    checkpointing: bool = True  # activations are computed again in the backward pass instead of kept

    @property
    def total_bytes(self) -> int:
        return sum(self.parts_bytes.values())

    @property
    def fits(self) -> bool:
        headroom = _HEADROOM if self.checkpointing else _KEEPING_HEADROOM
        return self.total_bytes <= self.available_bytes * headroom

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "total_bytes": self.total_bytes}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.parts_bytes.items())
        kept = "" if self.checkpointing else ", no gradient checkpointing"
        return (
            f"memory plan ({self.device}): {self.total_bytes / GIB:.2f} GiB of"
            f" {self.available_bytes / GIB:.2f} free at micro-batch {self.micro_batch} x accumulation"
            f" {self.accumulation}, {self.seq_length} tokens per row{kept} (GiB: {parts})"
        )


def estimate_step_memory(
    shape: ModelShape,
    seq_length: int,
    micro_batch: int,
    *,
    four_bit: bool,
    cpu: bool,
    checkpointing: bool = True,
    float32: bool = False,
    labels: int | None = None,
) -> dict[str, int]:
    """Bytes by part at the peak of a training step. Measuring the held-out rows needs no more: one pass has
    at most a micro-batch's tokens.

    ``float32``: a CPU without bfloat16, on which Unsloth keeps everything but 4-bit weights in 32 bit; or a
    GPU without it and a family that overflows in float16, whose activations Unsloth computes in 32 bit.
    ``labels``: trained tokens per row at most (two for a letter and end-of-text); None: all tokens.
    """
    tokens = seq_length * micro_batch
    value = 4 if float32 and cpu else _HALF_BYTES
    kept_as = 4 if float32 and not cpu else _HALF_BYTES  # a CPU's activations were measured, see below
    weights = shape.quantised * (_NF4_BYTES if four_bit else value) + shape.unquantised * value
    # A 4-bit layer is unpacked for its product: one buffer of the largest layer forward, one more backward.
    unpacked = 2 * shape.largest_linear * value if four_bit else 0
    # "unsloth" checkpointing keeps each layer's input: in place on a CPU, with a GPU on the host (two staging
    # buffers stay).
    inputs = (shape.layers if cpu else 3) * tokens * shape.hidden * kept_as
    values = _MLP_VALUES * shape.intermediate + _ATTENTION_VALUES * shape.hidden
    layer: float = tokens * values * kept_as
    if not checkpointing:
        kept = _KEPT_MLP_VALUES * shape.intermediate + _KEPT_HIDDEN_VALUES * shape.hidden
        inputs = shape.layers * tokens * kept * kept_as
    if cpu:
        if not checkpointing:
            inputs = int(shape.layers * layer * _CPU_KEPT) * value // _HALF_BYTES
        layer *= _CPU_ACTIVATIONS
        # Attention scores: torch's math kernel keeps them in float32; flash kernels on a GPU keep none.
        layer += 2 * micro_batch * shape.heads * seq_length**2 * 4
    # ``label_loss`` computes logits at the labels alone, and at most a chunk of them at once.
    labelled = min(micro_batch * (labels or seq_length), logit_chunk_rows(shape.vocabulary))
    return {
        "weights": int(weights),
        "adapter and gradients": shape.lora * _LORA_BYTES,
        "optimiser": int(shape.lora * _ADAM_BYTES["32bit" if cpu else "8bit"]),
        "unpacked layer": unpacked,
        "activations": int(inputs + layer),
        "logits": labelled * shape.vocabulary * LOGIT_BYTES,
        "runtime": _CPU_RUNTIME_BYTES if cpu else _CONTEXT_BYTES,
    }


def plan_memory(
    shape: ModelShape,
    seq_length: int,
    effective_batch: int,
    available_bytes: int,
    *,
    micro_batch: int | None = None,
    four_bit: bool = True,
    cpu: bool = False,
    device: str = "GPU",
    checkpointing: str = "auto",
    float32: bool = False,
    labels: int | None = None,
) -> MemoryPlan:
    """The plan with the largest micro-batch that divides the effective batch and fits; TrainError with what
    to change if none does.

    ``checkpointing``: on, off, or auto = off if a micro-batch that fills the device fits without it (on a
    CPU the largest that fits with it: a smaller one is slower there). ``float32``, ``labels``: see
    ``estimate_step_memory``.
    """
    sizes = [n for n in range(effective_batch, 0, -1) if effective_batch % n == 0]
    if micro_batch:
        sizes = [micro_batch]

    def plan(size: int, tokens: int, recompute: bool = checkpointing != "off") -> MemoryPlan:
        parts = estimate_step_memory(
            shape,
            tokens,
            size,
            four_bit=four_bit,
            cpu=cpu,
            checkpointing=recompute,
            float32=float32,
            labels=labels,
        )
        return MemoryPlan(
            micro_batch=size,
            accumulation=effective_batch // size,
            seq_length=tokens,
            parts_bytes=parts,
            available_bytes=available_bytes,
            device=device,
            checkpointing=recompute,
        )

    fitting = _first_fitting(plan(size, seq_length) for size in sizes)
    if fitting:
        full = _device_filling_batches(sizes, fitting, cpu) if checkpointing == "auto" else []
        return _first_fitting(plan(size, seq_length, recompute=False) for size in full) or fitting
    smallest = plan(sizes[-1], seq_length)
    shorter = _first_fitting(plan(sizes[-1], n) for n in range(seq_length // 64 * 64, 0, -64))
    advice = _memory_advice(smallest, shorter.seq_length if shorter else 0, four_bit)
    raise TrainError(f"{smallest}: does not fit; {advice}")


def _first_fitting(plans: Iterable[MemoryPlan]) -> MemoryPlan | None:
    return next((plan for plan in plans if plan.fits), None)


def _device_filling_batches(sizes: list[int], largest: MemoryPlan, cpu: bool) -> list[int]:
    """Micro-batches that fill the device: the largest that fits with checkpointing; on a GPU also smaller
    ones with enough tokens.
    """
    most = largest.micro_batch
    enough = [n for n in sizes if not cpu and n < most and n * largest.seq_length >= _FULL_TOKENS]
    return [n for n in sizes if n == most or n in enough]


def _memory_advice(tried: MemoryPlan, shorter: int, four_bit: bool) -> str:
    if not shorter:
        fixed = tried.total_bytes - tried.parts_bytes["activations"] - tried.parts_bytes["logits"]
        advice = "take a smaller model" if four_bit else "leave --load-in-4bit on"
        return (
            f"{advice} or free memory on the device: weights, adapter and runtime alone need"
            f" {fixed / GIB:.2f} GiB"
        )
    smaller_batch = f"--micro-batch {tried.micro_batch // 2} or " if tried.micro_batch > 1 else ""
    return f"{smaller_batch}--max-seq-length {shorter} or a smaller --r or free memory on the device"
