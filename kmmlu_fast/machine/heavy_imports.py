"""Importing vLLM and torch faster: without garbage collection and without optional packages.

In: nothing. Out: a block in which engines are imported and started. vLLM and transformers load about 5,000
modules, none of which is garbage, and each collection walks over all of them again. vLLM also imports
OpenTelemetry (for tracing) and Ray (for engines on several machines), both optional: inside the block they
appear not to be installed, afterwards they can be imported. (scikit-learn and scipy, which transformers looks
for, cannot be hidden: it caches whether they are installed, and may have checked before.) Knows nothing of
models.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence

_FREEZE = gc.freeze  # the original, even inside ``pause_garbage_collection``
UNUSED = ("opentelemetry", "ray")


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
