"""The process that trains: what it may import, and what must be kept out of it.

In: nothing. Out: a block without vLLM; Unsloth, imported in the right order. Unsloth's import loads vLLM's
compiled extensions to see whether they work (``unsloth.import_fixes.disable_broken_vllm``); ``vllm._C`` is
built for AVX-512, and on a CPU without it the process dies of an illegal instruction. Training needs nothing
of vLLM. Knows nothing of models or rows.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from kmmlu_fast.machine.device import check_toolchain, has_gpu
from kmmlu_fast.machine.host import best_cpu_dtype


@contextlib.contextmanager
def without_vllm() -> Iterator[None]:
    """Inside, vLLM is not installed: ``import vllm`` fails and ``find_spec("vllm")`` finds
    nothing. Afterwards all is as it was.
    """
    loaded = {
        name: module for name, module in sys.modules.items() if name == "vllm" or name.startswith("vllm.")
    }
    for name in loaded:
        del sys.modules[name]
    sys.modules["vllm"] = None  # type: ignore[assignment]  # what Python's import system takes for "there is none"
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
            del sys.modules[name]
        sys.modules.update(loaded)


def import_unsloth() -> Any:
    """The ``unsloth`` module; must come before transformers, TRL and PEFT, which it patches, the import
    itself is ``without_vllm``.

    EngineError where a card is here that torch cannot use: Unsloth would train on the CPU, for days, and say
    so in one line among many.
    """
    if has_gpu():
        check_toolchain()
        os.environ.setdefault("UNSLOTH_DISABLE_CPU_FALLBACK", "1")
    else:  # by the same rule as Unsloth's own, but one answer for the plan, what is said, and the training
        os.environ.setdefault("UNSLOTH_CPU_BF16", str(int(best_cpu_dtype() == "bfloat16")))
    with without_vllm():
        import unsloth

        return unsloth
