"""What computes here: a CUDA card or the CPU, and in which type. The one place that asks torch for a GPU.

In: nothing. Out: yes or no; the type that ``--dtype auto`` stands for, with the sentence that says why. Asking must not
spoil what comes after: torch's own question starts CUDA in this process, and a process forked from it can never use the card
("Cannot re-initialize CUDA in forked subprocess"), which is how vLLM starts its engine. Knows nothing of vLLM's arguments.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from kmmlu_fast.core import machine, nvml

_HALF_FROM = (8, 0)  # compute capability from which a card computes in bfloat16 (Ampere)


def has_gpu() -> bool:
    """Whether torch sees a CUDA device. Safe to ask before vLLM starts its engine process."""
    prepare_cuda()
    import torch

    return bool(torch.cuda.is_available())


def prepare_cuda() -> None:
    """Before anything asks for a GPU: torch counts cards by NVML, without CUDA; vLLM spawns its processes instead of forking.

    Forking would also copy a process in which threads run (the tokeniser's), with the locks they hold.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def gpu_capability() -> tuple[int, int] | None:
    """Compute capability of the first card, such as (8, 9); None where computing is the CPU's. Starts no CUDA in this process."""
    if not has_gpu():
        return None
    found = nvml.cards()
    return found[0].capability if found else _HALF_FROM


def auto_dtype(
    capability: tuple[int, int] | None, cpu_flags: Collection[str] | None = None
) -> tuple[str, str | None]:
    """What ``--dtype auto`` stands for on a device, and a note for the user where it is not simply the model's own type.

    ``auto`` stays ``auto`` where the device computes in bfloat16, so that runs keep their fingerprints; elsewhere the type is named,
    so that a float32 run and a bfloat16 run are never taken for one another. ``cpu_flags``: words of /proc/cpuinfo; None asks this machine.
    """
    if capability is not None:
        if capability >= _HALF_FROM:
            return "auto", None
        kind = f"{capability[0]}.{capability[1]}"
        return (
            "float16",
            f"computing in float16: a card of compute capability {kind} has no bfloat16, which needs 8.0",
        )
    if machine.best_cpu_dtype(cpu_flags) == "bfloat16":
        return "auto", None
    return "float32", (
        "computing in float32: this CPU has no bfloat16 instructions (AVX512_BF16 or AMX), emulating them is some four times slower; "
        "--dtype bfloat16 computes as most cards do"
    )
