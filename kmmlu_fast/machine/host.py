"""This computer's processor, cores, memory and disk, read from the system in milliseconds.

In: nothing (or the text of a system file, for the parsing functions). Out: small frozen records. Standard
library only, so that it runs before anything is installed. Knows nothing of models, of cards
(``machine.gpus``) or of installed packages (``machine.packages``).
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
# Flags of /proc/cpuinfo that decide which kernels run. vLLM has two CPU extensions: for avx512f and for avx2.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor's name and those of CPU_FLAGS that it has."""

    name: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this process may use: its container's share, if it runs in one. Sizes in bytes."""

    cpu: Cpu
    cores: int
    memory_total_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    architecture: str  # as in uname: x86_64
    python: tuple[int, int]


def detect_machine(folder: Path | None = None) -> Machine:
    """This machine; ``disk_free_bytes`` of the file system of ``folder`` (default: the current directory)."""
    total, free = memory_bytes()
    return Machine(
        cpu=detect_cpu(),
        cores=usable_cores(),
        memory_total_bytes=total,
        memory_free_bytes=free,
        disk_free_bytes=disk_free_bytes(folder or Path.cwd()),
        architecture=platform.machine(),
        python=(int(platform.python_version_tuple()[0]), int(platform.python_version_tuple()[1])),
    )


def parse_cpuinfo(text: str) -> Cpu:
    """The first processor of a Linux ``/proc/cpuinfo``; of an empty text, no name and no flags."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    words = frozenset(fields.get("flags", "").split())
    return Cpu(fields.get("model name", ""), words & frozenset(CPU_FLAGS))


def detect_cpu() -> Cpu:
    """This machine's processor."""
    cpu = parse_cpuinfo(_read_system_file(_CPUINFO) or "")
    return cpu if cpu.name else Cpu(platform.processor() or platform.machine(), cpu.flags)


def best_cpu_dtype(flags: Collection[str] | None = None) -> str:
    """``bfloat16`` if the CPU computes in it (AVX512_BF16 or AMX_BF16), else ``float32``.

    Other CPUs emulate bfloat16: 0.59 instead of 2.18 questions/s on Zen 3. ``flags``: words of /proc/cpuinfo;
    None reads this machine's.
    """
    if flags is None:
        flags = detect_cpu().flags
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def cpu_kind(flags: Collection[str]) -> str:
    """The processor's kind in words, by the instructions that decide its speed here."""
    if "amx_bf16" in flags:
        return "AMX: bfloat16 by matrix units"
    if "avx512_bf16" in flags:
        return "AVX512_BF16: bfloat16 is native"
    if "avx512f" in flags:
        return "AVX-512 without bfloat16: float32"
    if "avx2" in flags:
        return "AVX2, no AVX-512: float32"
    return "no AVX2"


def usable_cores(membership: str | None = None, root: Path = _CGROUPS) -> int:
    """Cores this process may use: its affinity, and its container's quota rounded up. At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = (_read_system_file(_MEMBERSHIP) or "") if membership is None else membership
    quotas = []
    for folder in _cgroup_folders(text, "cpu", root):
        # Version 2: "200000 100000", or "max 100000".
        both = (_read_system_file(folder / "cpu.max") or "").split()
        if not both:
            both = [_read_system_file(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        quota, period = (*both, "", "")[:2]
        if quota.strip().isdigit() and period.strip().isdigit() and int(period):
            quotas.append(-(-int(quota) // int(period)))
    return max(1, min([allowed, *quotas]))


def memory_bytes(
    meminfo: str | None = None, membership: str | None = None, root: Path = _CGROUPS
) -> tuple[int, int]:
    """(total, free) memory for this process: the machine's, or its container's if that is less.

    Page cache that the kernel would reclaim counts as free. (0, 0) if the system does not report it.
    """
    sizes: dict[str, int] = {}
    if meminfo is None:
        meminfo = _read_system_file(_MEMINFO) or ""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        number = value.split()
        if number and number[0].isdigit():
            sizes[name] = int(number[0]) * 1024
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", sizes.get("MemFree", 0))
    text = (_read_system_file(_MEMBERSHIP) or "") if membership is None else membership
    for folder in _cgroup_folders(text, "memory", root):
        limit = _read_number(folder / "memory.max", folder / "memory.limit_in_bytes")
        if limit is not None and limit < total:
            used = _read_number(folder / "memory.current", folder / "memory.usage_in_bytes") or 0
            used -= _page_cache_bytes(folder)
            total, free = limit, min(free, max(limit - used, 0))
    return total, free


def count_oom_kills(membership: str | None = None, root: Path = _CGROUPS, vmstat: Path | None = None) -> int:
    """How many processes of this container (else of the machine) the kernel has killed for memory."""
    text = (_read_system_file(_MEMBERSHIP) or "") if membership is None else membership
    counts = [
        _stat_field(_read_system_file(folder / name) or "", "oom_kill")
        for folder in _cgroup_folders(text, "memory", root)
        for name in ("memory.events", "memory.oom_control")
    ]
    return max([*counts, _stat_field(_read_system_file(vmstat or Path("/proc/vmstat")) or "", "oom_kill")])


def disk_free_bytes(folder: Path) -> int:
    """Free bytes of the file system that ``folder`` is, or would be, on; 0 if it cannot be read."""
    place = folder.absolute()
    existing = next((path for path in (place, *place.parents) if path.exists()), Path("/"))
    try:
        return shutil.disk_usage(existing).free
    except OSError:
        return 0


def _cgroup_folders(membership: str, controller: str, root: Path) -> Iterator[Path]:
    """The control-group folders that limit this process, innermost first.

    ``membership`` is /proc/self/cgroup: "0::/path" in version 2, "4:memory:/path" in version 1. In a
    container the path may be the host's, which is not mounted: then only the root of the mount exists.
    """
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            mounts = [root, root / "unified"]
        elif controller in names.split(","):
            mounts = [root / controller, root / names]
        else:
            continue
        for mount in mounts:
            inner = mount / path.lstrip("/")
            for folder in (inner, *inner.parents):
                if folder.is_dir():
                    yield folder
                if folder == mount:
                    break


def _page_cache_bytes(folder: Path) -> int:
    stat = _read_system_file(folder / "memory.stat") or ""
    return _stat_field(stat, "total_inactive_file") or _stat_field(stat, "inactive_file")


def _stat_field(text: str, name: str) -> int:
    rows = (line.split() for line in text.splitlines())
    return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == name and row[1].isdigit()), 0)


def _read_number(*paths: Path) -> int | None:
    texts = ((_read_system_file(path) or "").strip() for path in paths)
    return next((int(text) for text in texts if text.isdigit()), None)


def _read_system_file(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
