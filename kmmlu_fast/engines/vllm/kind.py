"""vLLM in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import EngineKind, find_engine_kind
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.engines.vllm.compiled_mode import SWAP_PROBLEM, choose_compiled_mode
from kmmlu_fast.machine.host import detect_cpu
from kmmlu_fast.models.model import Model


def open_vllm(
    options: EngineOptions, model: Model, adapters: Sequence[Adapter], max_model_len: int, path: str | None
) -> Engine:
    """Start vLLM here; as Ray replicas for data parallelism, which vLLM refuses in process."""
    if options.data_parallel_size > 1:
        return find_engine_kind("ray").open(options, model, adapters, max_model_len, path)
    from kmmlu_fast.engines.vllm.start import start_vllm_reporting, vllm_engine_settings

    return start_vllm_reporting(vllm_engine_settings(options, model, adapters, max_model_len, path))


def vllm_option_problem(options: EngineOptions) -> str:
    """Why the installed vLLM does not take these options, or ""."""
    if options.ray_address or options.quantization is None:
        return ""
    from kmmlu_fast.engines.vllm.device_arguments import quantization_problem

    return quantization_problem(options.quantization)


def _swap_problem(options: EngineOptions) -> str:
    if options.data_parallel_size > 1:
        return "weights can be written only into a single vLLM engine in this process"
    if options.compile == "on":
        return SWAP_PROBLEM
    return "random weights are not in a file" if options.load_format == "dummy" else ""


def _compiled_part(options: EngineOptions) -> dict[str, Any]:
    return {"compiled": True} if options.compile == "on" else {}


def _choose_compiled_mode(
    options: EngineOptions, questions: int, *, letters: bool, adapters: bool
) -> tuple[dict[str, Any], str]:
    """``--compile`` decided, as the engine and the fingerprint take it."""
    if options.compile == "off":
        return {}, ""
    if options.ray_address or KIND.on_gpu(options):
        if options.compile == "on":
            raise ConfigError("--compile on is for CPUs: on a GPU vLLM chooses by what is generated; omit it")
        return {"compile": "off"}, ""
    compiled, why = choose_compiled_mode(
        options.compile, detect_cpu().flags, options.dtype, questions, letters=letters, adapters=adapters
    )
    return {"compile": "on" if compiled else "off"}, why


def vllm_warm_parts(
    options: EngineOptions, model: Model, adapters: Sequence[Adapter], max_model_len: int, path: str | None
) -> dict[str, Any] | None:
    """What one vLLM engine in a process is built from. Two settings are left out: a longer context changes
    no answer but by rounding (its cache is larger), and every request that samples has a seed of its own. (Of
    a compiled engine neither is known.)
    """
    if options.data_parallel_size > 1 or options.load_format == "dummy" or options.compile == "on":
        return None
    from kmmlu_fast.engines.vllm.device_arguments import CPU_BATCH
    from kmmlu_fast.engines.vllm.engine import prepare_environment
    from kmmlu_fast.engines.vllm.start import vllm_engine_settings
    from kmmlu_fast.machine.device import has_gpu
    from kmmlu_fast.machine.gpus import list_gpus

    settings = vllm_engine_settings(options, model, adapters, max_model_len, path)
    gpu = has_gpu()
    prepare_environment(gpu, settings.model)  # as the start does: its variables are part of the identity
    parts = asdict(settings)
    del parts["max_model_len"], parts["seed"]
    if gpu:
        return {**parts, "gpus": [[card.name, card.capability] for card in list_gpus()]}
    del parts["generates"]  # chooses CUDA graphs
    if settings.samples:  # prompts are prefilled whole: the context decides the batches
        parts["prefilled_at_once"] = max(CPU_BATCH.max_num_batched_tokens, max_model_len)
    return parts


KIND = EngineKind(
    name="vllm",
    open=open_vllm,
    requires=lambda options: ["vllm", "torch"],
    libraries=lambda options: ["vllm", "transformers"],
    option_problem=vllm_option_problem,
    own_flags={
        "data_parallel_size": "with ray give --num-replicas; a server sets its own",
        "compile": "",
    },
    fingerprint_parts=_compiled_part,
    choose_for_questions=_choose_compiled_mode,
    swap_problem=_swap_problem,
    warm_parts=vllm_warm_parts,
)
