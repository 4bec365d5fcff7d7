"""Parsing of what the system says of itself, on samples of machines that are not this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kmmlu_fast.machine import host
from kmmlu_fast.machine.host import (
    CPU_FLAGS,
    Cpu,
    best_cpu_dtype,
    cpu_kind,
    detect_cpu,
    memory_bytes,
    parse_cpuinfo,
    usable_cores,
)

GIB = 1 << 30
_COMMON = "fpu vme de pse tsc msr sse4_1 sse4_2 fma avx f16c"
_SKYLAKE = "avx2 avx512f avx512dq avx512cd avx512bw avx512vl"
CPUS = {
    "haswell": ("Intel(R) Core(TM) i7-4790 CPU @ 3.60GHz", f"{_COMMON} avx2 bmi2"),
    "ivy_bridge": ("Intel(R) Core(TM) i7-3770 CPU @ 3.40GHz", _COMMON),
    "zen3": ("AMD Ryzen 7 5800X 8-Core Processor", f"{_COMMON} avx2 bmi2 vaes"),
    "zen4": ("AMD EPYC 9354 32-Core Processor", f"{_COMMON} {_SKYLAKE} avx512_bf16 avx512_vnni"),
    "zen5": ("AMD Ryzen 9 9950X 16-Core Processor", f"{_COMMON} {_SKYLAKE} avx_vnni avx512_bf16 avx512_vnni"),
    "sapphire_rapids": (
        "Intel(R) Xeon(R) Platinum 8480+",
        f"{_COMMON} {_SKYLAKE} avx_vnni avx512_bf16 avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8",
    ),
    "ice_lake": ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", f"{_COMMON} {_SKYLAKE} avx512_vnni"),
}


def cpuinfo(kind: str, processors: int = 2) -> str:
    """A /proc/cpuinfo in the kernel's layout."""
    name, flags = CPUS[kind]
    return "\n".join(
        f"processor\t: {n}\nvendor_id\t: made\nmodel name\t: {name}\nflags\t\t: {flags}\nbugs\t\t: x\n"
        for n in range(processors)
    )


@pytest.mark.parametrize(
    ("kind", "flags", "dtype", "words"),
    [
        ("ivy_bridge", set(), "float32", "no AVX2"),
        ("haswell", {"avx2"}, "float32", "no AVX-512"),
        ("zen3", {"avx2"}, "float32", "no AVX-512"),
        ("zen4", {"avx2", "avx512f", "avx512_bf16", "avx512_vnni"}, "bfloat16", "AVX512_BF16"),
        ("zen5", {"avx2", "avx512f", "avx512_bf16", "avx512_vnni"}, "bfloat16", "AVX512_BF16"),
        ("sapphire_rapids", set(CPU_FLAGS), "bfloat16", "AMX"),
        ("ice_lake", {"avx2", "avx512f", "avx512_vnni"}, "float32", "without bfloat16"),
    ],
)
def test_cpu_kinds(kind: str, flags: set[str], dtype: str, words: str) -> None:
    found = parse_cpuinfo(cpuinfo(kind))
    assert found == Cpu(CPUS[kind][0], frozenset(flags))
    assert best_cpu_dtype(found.flags) == dtype
    assert words in cpu_kind(found.flags)


def test_amx_alone_is_enough() -> None:
    assert best_cpu_dtype({"amx_bf16"}) == "bfloat16"


def test_cpuinfo_of_nothing() -> None:
    assert parse_cpuinfo("") == Cpu("", frozenset())
    assert best_cpu_dtype(()) == "float32"


def test_this_machine_has_a_name() -> None:
    assert detect_cpu().name


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = f"MemTotal: {32 * 1024 * 1024} kB\nMemFree: 1024 kB\nMemAvailable: {20 * 1024 * 1024} kB\n"


def test_memory_of_a_machine(tmp_path: Path) -> None:
    assert memory_bytes(MEMINFO, "0::/user.slice\n", tmp_path) == (32 * GIB, 20 * GIB)
    assert memory_bytes("", "", tmp_path) == (0, 0)


def test_memory_of_a_container_version_2(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "memory.max": str(8 * GIB),
            "memory.current": str(6 * GIB),
            "memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
        },
    )
    assert memory_bytes(MEMINFO, "0::/\n", root) == (8 * GIB, 4 * GIB)  # cache that can go counts as free
    assert memory_bytes(MEMINFO, "0::/a/path/of/the/host\n", root) == (8 * GIB, 4 * GIB)


def test_memory_takes_the_tightest_of_nested_groups(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "memory.max": "max",
            "outer/memory.max": str(4 * GIB),
            "outer/memory.current": "0",
            "outer/inner/memory.max": "max",
        },
    )
    assert memory_bytes(MEMINFO, "0::/outer/inner\n", root) == (4 * GIB, 4 * GIB)


def test_memory_of_a_container_version_1(tmp_path: Path) -> None:
    membership = "12:pids:/x\n4:memory:/docker/abc\n0::/\n"
    root = files(
        tmp_path,
        {
            "memory/docker/abc/memory.limit_in_bytes": str(2 * GIB),
            "memory/docker/abc/memory.usage_in_bytes": str(GIB),
            "memory/memory.limit_in_bytes": str((1 << 63) - 4096),  # the kernel's "no limit"
        },
    )
    assert memory_bytes(MEMINFO, membership, root) == (2 * GIB, GIB)


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)]
)
def test_cores_of_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores("0::/\n", files(tmp_path, {"cpu.max": quota})) == expected


def test_cores_of_a_quota_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    root = files(tmp_path, {"cpu/d/cpu.cfs_quota_us": "400000\n", "cpu/d/cpu.cfs_period_us": "100000\n"})
    assert usable_cores("3:cpu:/d\n", root) == 4
    root = files(tmp_path, {"cpu/d/cpu.cfs_quota_us": "-1\n"})
    assert usable_cores("3:cpu:/d\n", root) == 64


def test_oom_kills_are_counted_in_both_versions(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 1\noom_kill 1\n")
    root = files(tmp_path, {"memory.events": "low 0\noom 3\noom_kill 2\n"})
    assert host.count_oom_kills("0::/\n", root, vmstat) == 2
    root = files(tmp_path, {"memory/d/memory.oom_control": "under_oom 0\noom_kill 5\n"})
    assert host.count_oom_kills("4:memory:/d\n", root, vmstat) == 5
    assert host.count_oom_kills("", root, vmstat) == 1


def test_disk_of_a_folder_that_is_not_yet_there(tmp_path: Path) -> None:
    assert host.disk_free_bytes(tmp_path / "a" / "b") > 0


def test_look_finds_this_machine() -> None:
    here = host.detect_machine()
    assert (
        here.cores >= 1 and here.memory_total_bytes >= here.memory_free_bytes > 0 and here.disk_free_bytes > 0
    )
