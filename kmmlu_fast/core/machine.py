"""What this computer has: CPU, memory, cards, Python. Read from the system in well under a second.

In: nothing (or the text of a system file, for the parsing functions). Out: small frozen records. Only
the standard library is imported: it runs on a machine where nothing is installed yet. Knows nothing of models.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# Flags of /proc/cpuinfo that decide which kernels run. vLLM has two CPU extensions: for avx512f and for avx2.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor's name and those of CPU_FLAGS that it has."""

    name: str
    flags: frozenset[str]


def parse_cpuinfo(text: str) -> Cpu:
    """The first processor of a Linux ``/proc/cpuinfo``; of an empty text, no name and no flags."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(":")
        if found:
            fields.setdefault(key.strip(), value.strip())
    words = frozenset(fields.get("flags", fields.get("Features", "")).split())
    return Cpu(fields.get("model name", ""), words & frozenset(CPU_FLAGS))


def cpu() -> Cpu:
    """This machine's processor."""
    try:
        found = parse_cpuinfo(_CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = Cpu("", frozenset())
    return found if found.name else Cpu(platform.processor() or platform.machine(), found.flags)


def best_cpu_dtype(flags: Collection[str] | None = None) -> str:
    """``bfloat16`` where the CPU computes in it (AVX512_BF16 or AMX_BF16), else ``float32``.

    Elsewhere bfloat16 is emulated: 0.59 against 2.18 questions/s was seen on Zen 3. ``flags``: words of /proc/cpuinfo; None asks this machine.
    """
    has = cpu().flags if flags is None else flags
    return "bfloat16" if "avx512_bf16" in has or "amx_bf16" in has else "float32"
