"""Importing vLLM and torch faster: without garbage collection and without optional packages.

In: nothing. Out: a block in which engines are imported and started. vLLM and transformers load about 5,000
modules, none of which is garbage, and each collection walks over all of them again. vLLM also imports
OpenTelemetry (for tracing) and Ray (for engines on several machines), both optional: inside the block they
appear not to be installed, afterwards they can be imported. scikit-learn and scipy cannot be hidden
(transformers caches whether they are installed, and may have checked before): stand-ins import them when they
are used. torch notes where each operator is registered, for which ``inspect`` walks over all modules once an
operator: inside the block the frame is asked. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

_FREEZE = gc.freeze  # the original, even inside ``pause_garbage_collection``
UNUSED = ("opentelemetry", "ray")
# What transformers and vLLM import of packages that take 1.3 s to load, for audio, images and drafts.
DEFERRED = {
    "sklearn.metrics": ("roc_curve",),
    "scipy.optimize": ("linear_sum_assignment",),
    "scipy.signal": (),
}


@contextlib.contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """No garbage collection in the block, not even by explicit calls; restored afterwards.

    vLLM collects five times while it starts and four times while it ends, each time walking over everything
    imported, and freezes and unfreezes everything in between.
    """
    was_enabled, originals = gc.isenabled(), (gc.collect, gc.freeze, gc.unfreeze)
    gc.disable()
    gc.collect, gc.freeze, gc.unfreeze = (lambda generation=2: 0), (lambda: None), (lambda: None)
    try:
        yield
    finally:
        gc.collect, gc.freeze, gc.unfreeze = originals
        if was_enabled:
            gc.enable()


def use_one_blas_thread() -> None:
    """Before numpy is imported: OpenBLAS computes on one thread, unless the user has set another number. The
    products of statistics are of some 10,000 numbers: a second thread saves nothing, and waits for the next
    one at full speed (a tenth of a report's CPU time; more on many cores).
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def freeze_live_objects() -> None:
    """Exclude all live objects (mostly modules) from later collections. Collect garbage first."""
    _FREEZE()


@contextlib.contextmanager
def hide_packages(names: Sequence[str] = UNUSED) -> Iterator[None]:
    """In the block these packages appear not to be installed, unless they were imported before."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # makes Python raise ImportError
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, hidden) is None:
                del sys.modules[name]


@contextlib.contextmanager
def note_sources_fast() -> Iterator[None]:
    """In the block torch finds the file and line of an operator's registration without ``inspect``; the text
    is the same. Source: ``torch._library.utils.get_source``.
    """
    from torch._library import utils

    name = "get_source"
    original = getattr(utils, name, None)
    if original is None:  # another version of torch
        yield
        return

    def get_source(stacklevel: int) -> str:
        frame = sys._getframe(stacklevel)
        return f"{frame.f_code.co_filename}:{frame.f_lineno}"

    setattr(utils, name, get_source)
    try:
        yield
    finally:
        setattr(utils, name, original)


class _DeferredModule(ModuleType):
    """Stands in for a module: the named functions import it when they are called; all else does at once."""

    def __init__(self, name: str, functions: Sequence[str]) -> None:
        super().__init__(name)
        for function in functions:
            setattr(self, function, self._defer(function))

    def _defer(self, function: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            return getattr(self._load(), function)(*args, **named)

        call.__name__ = call.__qualname__ = function
        return call

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # ``inspect`` asks every module for its file
            raise AttributeError(name)
        return getattr(self._load(), name)

    def _load(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


@contextlib.contextmanager
def defer_functions(functions: Mapping[str, Sequence[str]] = DEFERRED) -> Iterator[None]:
    """In the block ``from module import function`` does not import an installed module; calling the function
    does, then or later. A module that was imported before stays as it is.
    """
    stand_ins = {
        name: _DeferredModule(name, names)
        for name, names in functions.items()
        if name not in sys.modules and importlib.util.find_spec(name.partition(".")[0]) is not None
    }
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
