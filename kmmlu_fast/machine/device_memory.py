"""Free and peak memory of the device that trains.

In: nothing. Out: bytes. Knows nothing of models.
"""

from __future__ import annotations

import contextlib

from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.machine.host import memory_bytes

GIB = 1024**3


def available_memory(limit_gib: float | None = None) -> tuple[int, str, bool]:
    """(free bytes, device name, is it the CPU) of the device that trains; at most ``limit_gib`` if given."""
    import torch

    if has_gpu():
        free, name, cpu = torch.cuda.mem_get_info()[0], torch.cuda.get_device_name(), False
    else:
        free, name, cpu = memory_bytes()[1], "CPU", True
    if limit_gib:
        free = min(free, int(limit_gib * GIB))
    return free, name, cpu


def current_capability() -> tuple[int, int]:
    """The compute capability of the GPU that torch uses."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return major, minor


def release_freed_memory() -> None:
    """Return memory that loading a model freed to the system: glibc keeps it, and training adds to it."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_bytes(cpu: bool) -> int:
    """Peak memory of this process: torch's reserved pool on a GPU, resident memory on the CPU."""
    if cpu:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    import torch

    return int(torch.cuda.max_memory_reserved())
