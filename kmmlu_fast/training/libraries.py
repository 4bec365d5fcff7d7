"""What the training process may import, and what it must not.

In: nothing. Out: one GPU of several; a block without vLLM; Unsloth, imported in the right order. Unsloth's
import loads vLLM's compiled extensions to see if they work (``unsloth.import_fixes.disable_broken_vllm``);
``vllm._C`` is built for AVX-512, and on a CPU without it the process dies of an illegal instruction. Training
does not need vLLM.
Knows nothing of models or rows.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.machine.device import check_toolchain, has_gpu
from kmmlu_fast.machine.gpus import list_gpus
from kmmlu_fast.machine.host import best_cpu_dtype


@contextlib.contextmanager
def without_vllm() -> Iterator[None]:
    """Inside the block, vLLM seems not to be installed: ``import vllm`` fails and ``find_spec("vllm")`` finds
    nothing. Afterwards ``sys.modules`` is restored.
    """
    loaded = _pop_vllm_modules()
    sys.modules["vllm"] = None  # type: ignore[assignment]  # to Python's import system: no such module
    try:
        yield
    finally:
        _pop_vllm_modules()
        sys.modules.update(loaded)


def _pop_vllm_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]
    return {name: sys.modules.pop(name) for name in names}


def use_one_gpu() -> None:
    """Hide all GPUs but the first before CUDA starts: transformers would spread a batch over all of them, and
    make other steps than planned. TrainError under a launcher of several processes.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdigit() and int(size) > 1:
        raise TrainError(
            f"this is one of {size} processes (WORLD_SIZE), as accelerate launch and torchrun start them, but"
            " training uses one GPU: start it with python -m kmmlu_fast.train, and choose the GPU with"
            " CUDA_VISIBLE_DEVICES"
        )
    gpus = list_gpus()
    if len(gpus) < 2:
        return
    log_note(
        f"note: training uses one of the {len(gpus)} GPUs, the first: {gpus[0]}; choose another with"
        f" CUDA_VISIBLE_DEVICES, such as CUDA_VISIBLE_DEVICES={gpus[1].index}"
    )
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0].uuid or str(gpus[0].index)


def import_unsloth() -> Any:
    """The ``unsloth`` module, imported ``without_vllm``. Call this before transformers, TRL or PEFT is
    imported: Unsloth patches them.

    EngineError if torch cannot use this machine's GPU: Unsloth would train on the CPU for days, with one line
    of output about it.
    """
    if has_gpu():
        check_toolchain()
        os.environ.setdefault("UNSLOTH_DISABLE_CPU_FALLBACK", "1")
    else:  # Unsloth's own rule, but decided once for the plan, the messages and the training
        os.environ.setdefault("UNSLOTH_CPU_BF16", str(int(best_cpu_dtype() == "bfloat16")))
    with without_vllm():
        import unsloth

        return unsloth
