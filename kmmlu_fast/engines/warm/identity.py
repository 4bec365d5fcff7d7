"""Which engine it is: everything that it is built from and that decides an answer, as one key.

In: the options, model and adapters of a command. Out: an ``EngineIdentity``; two commands may share an engine
only if their keys are equal and the engine's context is long enough. Model files, settings, versions, this
package's code, the environment variables that the libraries read and the processors all count. What an engine
of this process set in the environment does not: the next one sets it again. Knows nothing of sockets.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.digests import compute_fingerprint, describe_differences
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.machine.environment import code_digest, package_version
from kmmlu_fast.machine.variables import read_given_variables
from kmmlu_fast.models.model import Model

_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "triton")
# Variables that torch, its libraries and vLLM read.
_PREFIXES = (
    "ATEN_",
    "CUBLAS_",
    "CUDA_",
    "DNNL_",
    "FLASHINFER_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "NCCL_",
    "NVIDIA_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTORCH_",
    "TORCH",
    "TRITON_",
    "VLLM_",
)
# Set by transformers and vLLM when they are imported, which a command may have done before.
_SET_ON_IMPORT = (
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCHINDUCTOR_COMPILE_THREADS",
    "TRITON_CACHE_AUTOTUNING",
)
# Only say what is logged, and how long a start may take.
_LOGGING = ("TORCH_CPP_LOG_LEVEL", "TORCH_LOGS", "VLLM_CONFIGURE_LOGGING", "VLLM_LOGGING")
_PATIENCE = "VLLM_ENGINE_READY_TIMEOUT_S"


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """An engine's parts by name, JSON-able, and the longest prompt + output that it must hold."""

    parts: dict[str, Any]
    max_model_len: int

    @property
    def key(self) -> str:
        return compute_fingerprint(self.parts, digits=16)


def identify_engine(
    options: EngineOptions,
    model: Model,
    adapters: Sequence[Adapter],
    max_model_len: int,
    path: str | None = None,
) -> EngineIdentity | None:
    """The engine that ``factory.open_engine`` would start with these arguments; None if engines of this kind
    are not kept warm.
    """
    kind = find_engine_kind(options.engine)
    settings = kind.warm_parts(options, model, adapters, max_model_len, path)
    if settings is None:
        return None
    parts = {
        "engine": kind.name,
        **settings,
        "model_digest": model.digest,
        "versions": {name: package_version(name) for name in (*kind.libraries(options), *_LIBRARIES)},
        "python": f"{os.path.realpath(sys.prefix)} {sys.version}",  # bin/python and bin/python3 are one
        "kmmlu_fast's code": code_digest()[:12],
        "processors": _usable_processors(),
        "environment": _deciding_variables(),
    }
    return EngineIdentity(json.loads(json.dumps(parts)), max_model_len)  # as the other process shows them


def describe_identity_differences(warm: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Why the warm engine's parts are not the wanted ones, most telling first."""
    return describe_differences(_flatten(warm), _flatten(wanted))


def _flatten(parts: dict[str, Any]) -> dict[str, Any]:
    """Versions and variables by their own names."""
    flat: dict[str, Any] = {}
    for name, value in parts.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _usable_processors() -> list[int]:
    """How many threads compute, and where: the order of additions depends on it."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [os.cpu_count() or 1]


def _deciding_variables() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(read_given_variables().items())
        if name == "LD_PRELOAD"
        or (
            name.startswith(_PREFIXES)
            and not name.startswith((*_LOGGING, _PATIENCE))
            and name not in _SET_ON_IMPORT
        )
    }
