"""Plain transformers in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import EngineKind
from kmmlu_fast.engines.options import NF4_NAMES, EngineOptions
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.models.model import Model


def open_transformers(
    options: EngineOptions, model: Model, adapters: Sequence[Adapter], max_model_len: int, path: str | None
) -> Engine:
    """Load the model here."""
    from kmmlu_fast.engines.hf.engine import TransformersEngine
    from kmmlu_fast.engines.hf.model import TransformersSettings

    settings = TransformersSettings(
        model=path or model.path,
        revision=None if path else model.revision,
        tokenizer=model.path,
        dtype=options.dtype,
        quantization="nf4" if options.quantization else None,
        letter_precision=options.letter_precision,
        max_model_len=max_model_len,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        seed=options.seed,
        trust_remote_code=options.trust_remote_code,
        adapters=tuple(adapters),
    )
    return TransformersEngine(settings)


def _transformers_option_problem(options: EngineOptions) -> str:
    if options.quantization not in (None, *NF4_NAMES):
        return (
            f"--quantization {options.quantization} goes with vLLM; --engine transformers takes nf4 (or its"
            " synonym bitsandbytes)"
        )
    if options.tensor_parallel_size > 1:
        return "--tensor-parallel-size goes with vLLM; --engine transformers computes on one device"
    if options.load_format != "auto":
        return "--load-format goes with vLLM; --engine transformers loads the repository's safetensors"
    return ""


def _advice_on_cpu() -> str:
    from kmmlu_fast.machine.device import has_gpu

    if has_gpu():
        return ""
    return "engine: transformers is slow on a CPU; --engine vllm is faster if it can serve the model"


def _libraries(options: EngineOptions) -> list[str]:
    return ["transformers", "bitsandbytes"] if options.quantization else ["transformers"]


def _requires(options: EngineOptions) -> list[str]:
    return ["torch", "accelerate", "bitsandbytes"] if options.quantization else ["torch", "accelerate"]


def _fingerprint_parts(options: EngineOptions) -> dict[str, Any]:
    return {"engine": "transformers", "quantization": "nf4" if options.quantization else None}


KIND = EngineKind(
    name="transformers",
    open=open_transformers,
    requires=_requires,
    libraries=_libraries,
    option_problem=_transformers_option_problem,
    fingerprint_parts=_fingerprint_parts,
    applies_adapters=True,
    loads_with_peft=True,
    refused_adapter_modes={
        "swap": "goes with vLLM: --engine transformers applies adapters unmerged; use serve"
    },
    swap_problem=lambda options: "weights can be written only into a single vLLM engine in this process",
    advice=_advice_on_cpu,
)
