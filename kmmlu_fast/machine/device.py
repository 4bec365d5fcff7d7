"""Whether a CUDA card or the CPU computes, and in which type. The only module that asks torch for a GPU.

In: nothing. Out: yes or no; the type that ``--dtype auto`` stands for, with the reason. torch's own check
would start CUDA in this process, and a process forked from it can never use the card ("Cannot re-initialize
CUDA in forked subprocess"); vLLM forks its engine by default. Knows nothing of vLLM's arguments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import replace

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.machine import gpus, host, memory_fit, packages
from kmmlu_fast.machine.heavy_imports import pause_garbage_collection
from kmmlu_fast.machine.setup_commands import setup_command

# Model types that overflow in float16; vLLM 0.32 (config/model.py) refuses them too.
_NOT_IN_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})


def has_gpu() -> bool:
    """Whether torch can use a CUDA device. Safe to call before vLLM starts its engine process.

    EngineError if the driver shows a card that torch cannot use: falling back to the CPU silently would take
    hours instead of minutes.
    """
    prepare_cuda()
    # Importing torch takes seconds, in which a build without CUDA has nothing to find.
    build = None if "torch" in sys.modules else packages.read_torch_build()
    if build is not None and build.computes_on_cpu:
        version, cuda, sees = build.version, None, False
    else:
        with pause_garbage_collection():
            import torch

        version, cuda, sees = torch.__version__, torch.version.cuda, bool(torch.cuda.is_available())
    if cards := gpus.list_gpus():
        why = torch_gpu_problem(cards[0], version, cuda, sees)
        if why:
            set_up = f"{setup_command('cpu')}, and " if packages.installed_kind() == "gpu" else ""
            raise EngineError(f"{why}; to compute on the CPU on purpose: {set_up}CUDA_VISIBLE_DEVICES=-1")
    return sees


def torch_gpu_problem(card: gpus.Gpu, torch_version: str, torch_cuda: str | None, sees: bool) -> str:
    """Why torch cannot use a card that the driver shows, and what to do, in one line; empty if it can.

    ``torch_cuda``: the CUDA version that torch is built for, None for a CPU build. torch's own answer
    ``sees`` is not enough: with NVML it also counts a card whose driver is too old, and fails later.
    """
    if torch_cuda is None:
        return f"{card} is here, but torch {torch_version} is built for the CPU: {setup_command('gpu')}"
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
    """Make torch count cards with NVML instead of CUDA, and vLLM spawn its processes instead of forking.

    Call it before anything asks for a GPU. A fork would also copy locks held by running threads (the
    tokenizer's).
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def first_gpu() -> gpus.Gpu | None:
    """The first card that torch can use; None if the CPU computes. Does not start CUDA in this process."""
    if not has_gpu():
        return None
    if cards := gpus.list_gpus():
        return cards[0]
    # A board whose driver has no NVML (Jetson): it computes in bfloat16 and does not report its memory.
    return gpus.Gpu(name="GPU", capability=memory_fit.BFLOAT16, total_bytes=0, free_bytes=0, driver="")


def weakest_gpu(count: int = 1) -> gpus.Gpu | None:
    """What the first ``count`` cards have in common, as one card: the least memory, the oldest generation.

    None if the CPU computes. EngineError if there are fewer cards: a model split over them would not start.
    """
    first = first_gpu()
    if first is None or count == 1:
        return first
    cards = gpus.list_gpus() or [first]
    if len(cards) < count:
        raise EngineError(
            f"--tensor-parallel-size {count}: this process sees {len(cards)}"
            f" GPU{'s' * (len(cards) > 1)} ({first.name}); give at most {len(cards)}"
        )
    chosen = cards[:count]
    return replace(
        min(chosen, key=lambda card: card.total_bytes),
        capability=min(card.capability for card in chosen),
        free_bytes=min(card.free_bytes for card in chosen),
    )


def gpu_capability() -> tuple[int, int] | None:
    """Compute capability of ``first_gpu``, such as (8, 9); None if the CPU computes."""
    card = first_gpu()
    return None if card is None else card.capability


def check_toolchain() -> None:
    """EngineError if Triton, which compiles a card's kernels at run time, would fail."""
    if missing := packages.find_toolchain().missing:
        raise EngineError(
            f"Triton compiles the card's kernels at run time, which needs {missing}: install them"
            " (such as apt install gcc python3-dev), or name a compiler in CC"
        )


def resolve_auto_dtype(
    capability: tuple[int, int] | None,
    model_type: str = "",
    quantised: bool = False,
    cpu_flags: Collection[str] | None = None,
) -> tuple[str, str | None]:
    """The type that ``--dtype auto`` stands for, and a note for the user if it is not the model's own type.

    ``auto`` stays ``auto`` if the device computes in bfloat16, so that runs keep their fingerprints;
    otherwise the type is named, so that a float32 run is never mistaken for a bfloat16 run. ``capability``:
    of the card, None for the CPU; ``quantised``: weights stored in 4 or 8 bit, whose kernels choose the type;
    ``cpu_flags``: words of /proc/cpuinfo, None reads this machine's.
    """
    if capability is not None:
        if capability >= memory_fit.BFLOAT16:
            return "auto", None
        dtype = "float32" if model_type in _NOT_IN_FLOAT16 else "float16"
        version = f"{capability[0]}.{capability[1]}"
        why = f"a card of compute capability {version} has no bfloat16, which needs 8.0"
        return dtype, f"computing in {dtype}: {why}"
    if quantised or host.best_cpu_dtype(cpu_flags) == "bfloat16":
        return "auto", None
    why = (
        "this CPU has no bfloat16 instructions (AVX512_BF16 or AMX), and emulating them is about four times"
        " slower; --dtype bfloat16 computes as most cards do"
    )
    return "float32", f"computing in float32: {why}"
