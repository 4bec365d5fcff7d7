"""Parsing of what the system says of itself, on samples of machines that are not this one."""

from __future__ import annotations

import pytest

from kmmlu_fast.core.machine import Cpu, best_cpu_dtype, cpu, parse_cpuinfo

_COMMON = "fpu vme de pse tsc msr sse4_1 sse4_2 fma avx f16c"
CPUS = {
    "zen3": ("AMD Ryzen 7 5800X 8-Core Processor", f"{_COMMON} avx2 bmi2 vaes"),
    "zen4": (
        "AMD EPYC 9354 32-Core Processor",
        f"{_COMMON} avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_bf16 avx512_vnni",
    ),
    "zen5": (
        "AMD Ryzen 9 9950X 16-Core Processor",
        f"{_COMMON} avx2 avx_vnni avx512f avx512dq avx512bw avx512vl avx512_bf16 avx512_vnni avx512_vp2intersect",
    ),
    "sapphire_rapids": (
        "Intel(R) Xeon(R) Platinum 8480+",
        f"{_COMMON} avx2 avx512f avx512dq avx512bw avx512vl avx_vnni avx512_bf16 avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8",
    ),
    "ice_lake": (
        "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz",
        f"{_COMMON} avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni",
    ),
}


def cpuinfo(kind: str, processors: int = 2) -> str:
    """A /proc/cpuinfo in the kernel's layout."""
    name, flags = CPUS[kind]
    lines = [
        f"processor\t: {{n}}\nvendor_id\t: made\nmodel name\t: {name}\ncache size\t: 512 KB\nflags\t\t: {flags}\nbugs\t\t: x\n"
    ]
    return "\n".join(lines[0].replace("{n}", str(n)) for n in range(processors))


@pytest.mark.parametrize(
    ("kind", "flags", "dtype"),
    [
        ("zen3", {"avx2"}, "float32"),
        ("zen4", {"avx2", "avx512f", "avx512_bf16", "avx512_vnni"}, "bfloat16"),
        ("zen5", {"avx2", "avx512f", "avx512_bf16", "avx512_vnni"}, "bfloat16"),
        (
            "sapphire_rapids",
            {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"},
            "bfloat16",
        ),
        ("ice_lake", {"avx2", "avx512f", "avx512_vnni"}, "float32"),
    ],
)
def test_cpu_kinds(kind: str, flags: set[str], dtype: str) -> None:
    found = parse_cpuinfo(cpuinfo(kind))
    assert found == Cpu(CPUS[kind][0], frozenset(flags))
    assert best_cpu_dtype(found.flags) == dtype


def test_amx_alone_is_enough() -> None:
    assert best_cpu_dtype({"amx_bf16"}) == "bfloat16"


def test_cpuinfo_of_nothing() -> None:
    assert parse_cpuinfo("") == Cpu("", frozenset())
    assert best_cpu_dtype(()) == "float32"


def test_this_machine_has_a_name() -> None:
    assert cpu().name
