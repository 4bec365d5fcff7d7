"""The memory of the device that trains: what is free, and the most that was held.

In: nothing but the machine. Out: bytes. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from kmmlu_fast.machine.device import has_gpu

GIB = 1024**3


def available_memory(limit_gib: float | None = None) -> tuple[int, str, bool]:
    """(free bytes, device name, is it the CPU) of the device that training will use, capped by
    the user's limit.
    """
    import torch

    if has_gpu():
        free, name, cpu = torch.cuda.mem_get_info()[0], torch.cuda.get_device_name(), False
    else:
        free, name, cpu = _free_host_bytes(), "CPU", True
    return (min(free, int(limit_gib * GIB)) if limit_gib else free), name, cpu


def _free_host_bytes() -> int:
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, max(int(text) - int(used.read_text()), 0))  # a container's own limit
    return free


def release_freed_memory() -> None:
    """Hand back to the system what loading a model has freed: glibc keeps it, and a step comes on top."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_bytes(cpu: bool) -> int:
    """The most memory that this process has held: torch's reserved pool on GPU, resident memory on CPU."""
    if cpu:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    import torch

    return int(torch.cuda.max_memory_reserved())
