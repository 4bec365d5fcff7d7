"""Inductor, torch's compiler, loaded when something is compiled instead of when vLLM is imported.

In: nothing. Out: a block in which vLLM is imported without it; a count of ranks that need not be compiled. On
a CPU vLLM runs the model eagerly and yet pays for Inductor before the first answer: its import adds vLLM's
operators to Inductor's list of fallbacks and wraps small functions in ``torch.compile`` (1.3 s), and its
sampler compiles one comparison (1.8 s, also with torch's disk cache: Inductor asks the C++ compiler what this
CPU can do). Here the list is extended when Inductor is first imported, functions are wrapped when they are
first called, and the comparison is made row by row. Sources: vLLM 0.32
``env_override._patch_inductor_fallback_allow_list``, ``v1.sample.ops.logprobs.batched_count_greater_than``.
Knows nothing of KMMLU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

from kmmlu_fast.machine.environment import package_version
from kmmlu_fast.machine.heavy_imports import hide_packages

_LOWERING = "torch._inductor.lowering"
_ALLOWS_FOR_IT = "0.32."  # versions of vLLM whose import was read, and is tested, without it


class _RunAfterImport(importlib.abc.MetaPathFinder):
    """Runs ``then`` once, after the module called ``name`` was imported."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        run_module = spec.loader.exec_module

        def run_both(module: ModuleType) -> None:
            run_module(module)
            self.then()

        spec.loader.exec_module = run_both  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def import_without_inductor() -> Iterator[None]:
    """Import vLLM in the block of ``compile_when_called``: Inductor's lowerings seem not to be there, which
    vLLM 0.32 allows for. Its change to them is made when they are imported. Another version is imported as
    it is.
    """
    known = (package_version("vllm") or "").startswith(_ALLOWS_FOR_IT)
    if not known or _LOWERING in sys.modules or "vllm" in sys.modules:
        yield
        return
    with hide_packages([_LOWERING]):
        yield
    extend = getattr(sys.modules.get("vllm.env_override"), "_patch_inductor_fallback_allow_list", None)
    if extend is not None:
        sys.meta_path.insert(0, _RunAfterImport(_LOWERING, extend))


@contextlib.contextmanager
def compile_when_called() -> Iterator[None]:
    """In the block ``torch.compile`` wraps a function without compiling anything: even to choose Inductor
    imports all of it. The first call, then or later, hands the function to torch's own.
    """
    import torch

    compile_now = torch.compile

    def compile_late(function: Any = None, **options: Any) -> Any:
        if function is None:
            return functools.partial(compile_late, **options)
        if not isinstance(function, FunctionType):
            return compile_now(function, **options)
        compiled: Any = None

        @functools.wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            nonlocal compiled
            if compiled is None:
                compiled = compile_now(function, **options)
            return compiled(*args, **named)

        return call

    torch.compile = compile_late
    try:
        yield
    finally:
        if torch.compile is compile_late:  # a library that was imported in the block may have its own
            torch.compile = compile_now


def count_ranks_by_row() -> None:
    """vLLM's sampler counts with ``count_at_least`` from now on, in this process."""
    try:
        from vllm.v1.sample import sampler
    except ImportError:  # another version of vLLM may not have it, or the function
        return
    name = "batched_count_greater_than"
    if hasattr(sampler, name):
        setattr(sampler, name, count_at_least)


def count_at_least(logprobs: Any, values: Any) -> Any:
    """How many numbers of each row are at least the row's value: [rows, words], [rows, 1] -> [rows], int64.

    Row by row, so that a row's comparison stays in the cache: 0.1 ms for 262,144 words, a seventh of what the
    whole comparison takes eagerly; compiled it takes 0.03 ms.
    """
    import torch

    return torch.stack([(row >= value).count_nonzero() for row, value in zip(logprobs, values, strict=True)])
