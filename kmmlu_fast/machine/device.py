"""What computes here: a CUDA card or the CPU, and in which type. The one place that asks torch for a GPU.

In: nothing. Out: yes or no; the type that ``--dtype auto`` stands for, with the sentence that says why.
Asking must not spoil what comes after: torch's own question starts CUDA in this process, and a process forked
from it can never use the card ("Cannot re-initialize CUDA in forked subprocess"), which is how vLLM starts
its engine. Knows nothing of vLLM's arguments.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.machine import gpus, host, memory_fit, packages
from kmmlu_fast.machine.heavy_imports import pause_garbage_collection

_NOT_IN_FLOAT16 = frozenset(
    {"gemma2", "gemma3", "gemma3_text", "glm4"}
)  # they overflow; vLLM 0.32 config/model.py refuses them too


def has_gpu() -> bool:
    """Whether torch can use a CUDA device. Safe to ask before vLLM starts its engine process.

    EngineError where the driver shows a card that torch cannot use: to go on with the CPU in silence would
    take hours instead of minutes.
    """
    prepare_cuda()
    with pause_garbage_collection():
        import torch

    sees = bool(torch.cuda.is_available())
    if found := gpus.list_gpus():
        why = torch_gpu_problem(found[0], torch.__version__, torch.version.cuda, sees)
        if why:
            set_up = "bash scripts/setup.sh cpu, and " if packages.installed_kind() == "gpu" else ""
            raise EngineError(f"{why}; to compute on the CPU on purpose: {set_up}CUDA_VISIBLE_DEVICES=-1")
    return sees


def torch_gpu_problem(card: gpus.Gpu, torch_version: str, torch_cuda: str | None, sees: bool) -> str:
    """Why torch cannot use a card that the driver shows, and what to do, in one line; empty where it can.

    ``torch_cuda``: the CUDA version that torch is built for, None for a CPU build. torch's own answer
    ``sees`` is not enough: by NVML it counts a card whose driver is too old, and fails when it computes.
    """
    if torch_cuda is None:
        return f"{card} is here, but torch {torch_version} is built for the CPU: bash scripts/setup.sh gpu"
    if why := memory_fit.unsupported_gpu_reason(card.capability, card.name):
        return why
    if why := packages.driver_problem(card.driver, int(torch_cuda.split(".")[0])):
        return f"{card}: {why}"
    if not sees:
        return (
            f"{card} is here, but torch {torch_version} (CUDA {torch_cuda}) sees no GPU: is it in use, or not"
            " given to this container?"
        )
    return ""


def prepare_cuda() -> None:
    """Before anything asks for a GPU: torch counts cards by NVML, without CUDA; vLLM spawns its processes
    instead of forking.

    Forking would also copy a process in which threads run (the tokeniser's), with the locks they hold.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def first_gpu() -> gpus.Gpu | None:
    """The first card that torch can use; None where computing is the CPU's. Starts no CUDA in
    this process.
    """
    if not has_gpu():
        return None
    found = gpus.list_gpus()
    # A board whose driver has no NVML (Jetson): it computes in bfloat16, and says nothing of its memory.
    return (
        found[0]
        if found
        else gpus.Gpu(name="GPU", capability=memory_fit.BFLOAT16, total_bytes=0, free_bytes=0, driver="")
    )


def gpu_capability() -> tuple[int, int] | None:
    """Compute capability of the first card, such as (8, 9); None where computing is the CPU's.
    Starts no CUDA in this process.
    """
    found = first_gpu()
    return None if found is None else found.capability


def check_toolchain() -> None:
    """EngineError where Triton, which compiles kernels while they run on a card, would fail in
    the middle of it.
    """
    if missing := packages.find_toolchain().missing:
        raise EngineError(
            f"a card's kernels are compiled by Triton while they run, which needs {missing}: install them"
            " (such as apt install gcc python3-dev), or name a compiler in CC"
        )


def resolve_auto_dtype(
    capability: tuple[int, int] | None,
    model_type: str = "",
    quantised: bool = False,
    cpu_flags: Collection[str] | None = None,
) -> tuple[str, str | None]:
    """What ``--dtype auto`` stands for on a device, and a note for the user where it is not the model's own
    type.

    ``auto`` stays ``auto`` where the device computes in bfloat16, so that runs keep their fingerprints;
    elsewhere the type is named, so that a float32 run and a bfloat16 run are never taken for one another.
    ``capability``: of the card, None for the CPU; ``quantised``: weights stored in 4 or 8 bit, whose kernels
    choose; ``cpu_flags``: words of /proc/cpuinfo, None asks this machine.
    """
    if capability is not None:
        if capability >= memory_fit.BFLOAT16:
            return "auto", None
        dtype = "float32" if model_type in _NOT_IN_FLOAT16 else "float16"
        kind = f"{capability[0]}.{capability[1]}"
        return (
            dtype,
            f"computing in {dtype}: a card of compute capability {kind} has no bfloat16, which needs 8.0",
        )
    if quantised or host.best_cpu_dtype(cpu_flags) == "bfloat16":
        return "auto", None
    return (
        "float32",
        (
            "computing in float32: this CPU has no bfloat16 instructions (AVX512_BF16 or AMX), emulating them"
            " is some four times slower; --dtype bfloat16 computes as most cards do"
        ),
    )
