"""Importing vLLM and torch in less time: no garbage collection meanwhile, and without packages
that are only looked for in passing.

In: nothing. Out: a block in which engines are imported and started. vLLM and transformers make some 5,000
modules, none of which is garbage, and each collection walks over all of them again. vLLM imports
OpenTelemetry for traces that nobody asked for and Ray for engines over several machines: both are optional
there, and are not installed as far as the block goes. Afterwards whoever imports them gets them.
(What transformers looks for, scikit-learn and scipy, cannot be left out: it keeps its answers to "is it
installed?", and may have asked before.)
Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence

_FREEZE = gc.freeze  # also where ``pause_garbage_collection`` has taken it away
UNUSED = ("opentelemetry", "ray")


@contextlib.contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """No garbage collection in the block, not even where it is asked for; as it was afterwards.

    vLLM collects five times while it starts and four times while it ends, each for as long as all that was
    imported takes to walk over, and freezes and unfreezes everything in between.
    """
    collects, usual = gc.isenabled(), (gc.collect, gc.freeze, gc.unfreeze)
    gc.disable()
    gc.collect, gc.freeze, gc.unfreeze = (lambda generation=2: 0), (lambda: None), (lambda: None)
    try:
        yield
    finally:
        gc.collect, gc.freeze, gc.unfreeze = usual
        if collects:
            gc.enable()


def freeze_live_objects() -> None:
    """Objects of now are looked at by no later collection: modules, above all. Collect before they come."""
    _FREEZE()


@contextlib.contextmanager
def hide_packages(names: Sequence[str] = UNUSED) -> Iterator[None]:
    """In the block these packages are not installed, unless somebody has imported them before."""
    out = [name for name in names if name not in sys.modules]
    for name in out:
        sys.modules[name] = None  # type: ignore[assignment]  # what Python takes for "there is none"
    try:
        yield
    finally:
        for name in out:
            if sys.modules.get(name, out) is None:
                del sys.modules[name]
