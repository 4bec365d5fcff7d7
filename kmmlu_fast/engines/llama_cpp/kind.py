"""llama.cpp in this process, for GGUF files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import EngineKind
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.models.gguf import is_gguf_path
from kmmlu_fast.models.model import Model

_DECIDED_BY_FILE = (
    "revision",
    "dtype",
    "quantization",
    "letter_precision",
    "tensor_parallel_size",
    "data_parallel_size",
    "load_format",
)
_MERGED_ONLY = (
    "does not go with a GGUF file: export the adapter merged (kmmlu-fast export --to gguf) and give that file"
    " with --model"
)


def open_llama_cpp(
    options: EngineOptions, model: Model, adapters: Sequence[Adapter], max_model_len: int, path: str | None
) -> Engine:
    """Load the file here."""
    from kmmlu_fast.engines.llama_cpp.engine import LlamaCppEngine, LlamaCppSettings

    settings = LlamaCppSettings(
        path=Path(path or model.path),
        max_model_len=max_model_len,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        seed=options.seed,
    )
    return LlamaCppEngine(settings)


def _llama_cpp_option_problem(options: EngineOptions) -> str:
    if not is_gguf_path(options.model):
        return (
            f"--engine llama-cpp serves a GGUF file, which --model {options.model} is not; make one with"
            " kmmlu-fast export --to gguf"
        )
    if getattr(options, "adapter", None):
        return f"--adapter {_MERGED_ONLY}"
    fields = type(options).model_fields
    for name in _DECIDED_BY_FILE:
        if getattr(options, name) != fields[name].default:
            flag = f"--{name.replace('_', '-')}"
            return f"{flag} does not go with --engine llama-cpp: the GGUF file decides it"
    return ""


KIND = EngineKind(
    name="llama-cpp",
    open=open_llama_cpp,
    requires=lambda options: ["xllamacpp"],
    libraries=lambda options: ["xllamacpp"],
    option_problem=_llama_cpp_option_problem,
    fingerprint_parts=lambda options: {"engine": "llama-cpp"},
    computes_here=False,
    keeps_special=False,
    refused_adapter_modes=dict.fromkeys(("serve", "swap", "merge"), _MERGED_ONLY),
)
