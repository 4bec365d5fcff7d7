"""Starts vLLM: settings from options, and the shortened import.

In: options, a model, adapters. Out: ``EngineSettings``; a ``VllmEngine``. Knows nothing of questions.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.engines.vllm import startup_phases
from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine, prepare_environment
from kmmlu_fast.engines.vllm.late_inductor import (
    compile_when_called,
    count_ranks_by_row,
    import_without_inductor,
)
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.machine.heavy_imports import (
    UNUSED,
    defer_functions,
    freeze_live_objects,
    hide_packages,
    note_sources_fast,
    pause_garbage_collection,
)
from kmmlu_fast.machine.variables import record_library_variables
from kmmlu_fast.models.model import Model


def vllm_engine_settings(
    config: EngineOptions,
    model: Model,
    adapters: Sequence[Adapter],
    max_model_len: int,
    path: str | None = None,
) -> EngineSettings:
    """Settings of a vLLM engine. ``path`` replaces the weights (a merged copy), not the tokenizer.

    They are the same wherever the engine opens: what depends on the device is decided there.
    """
    extra: tuple[tuple[str, Any], ...] = (("trust_remote_code", True),) if config.trust_remote_code else ()
    return EngineSettings(
        model=path or model.path,
        revision=None if path else model.revision,
        tokenizer=model.path,
        dtype=config.dtype,
        quantization=config.quantization,
        max_model_len=max_model_len,
        gpu_memory_utilization=config.gpu_memory_utilization,
        tensor_parallel_size=config.tensor_parallel_size,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        load_format=config.load_format,
        seed=config.seed,
        max_lora_rank=max((adapter.rank for adapter in adapters), default=0),
        num_adapters=len(adapters),
        generates=getattr(config, "output_type", None) != "multiple_choice",
        letter_precision=config.letter_precision,
        compiled=config.compile == "on",
        samples=getattr(config, "temperature", 0.0) > 0,
        extra=extra,
    )


def start_vllm_reporting(settings: EngineSettings) -> VllmEngine:
    """``start_vllm``, with a line about what it is doing just now."""
    with (
        startup_phases.record_startup_phases() as log,
        report_wait(
            "engine: starting",
            lambda: startup_phases.current_phase(log),
            lambda: startup_phases.describe_phase_times(log),
        ),
    ):
        return start_vllm(settings)


def start_vllm(settings: EngineSettings) -> VllmEngine:
    """Start vLLM in this process with a shortened import. vLLM needs Ray only for a model on several GPUs."""
    unused = [name for name in UNUSED if name != "ray" or settings.tensor_parallel_size == 1]
    on_gpu = has_gpu()
    prepare_environment(on_gpu, settings.model)
    gc.collect()  # freezing keeps what is garbage now for good
    with pause_garbage_collection(), hide_packages(unused), record_library_variables(), defer_functions():
        if on_gpu or settings.compiled:
            import vllm.entrypoints.llm

            freeze_live_objects()
            return VllmEngine(settings)
        with compile_when_called(), note_sources_fast():
            with import_without_inductor():
                import vllm.entrypoints.llm  # noqa: F401
            count_ranks_by_row()
            freeze_live_objects()
            return VllmEngine(settings)
