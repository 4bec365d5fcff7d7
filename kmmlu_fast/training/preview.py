"""``train --plan``: what would fit, without weights, rows or even the GPU.

In: a ``TrainConfig``, optionally with a GPU's GiB. Out: lines of text, computed from training's own count of
the model if transformers is installed (seconds), else from its config.json; not measured. Knows nothing of
data.
"""

from __future__ import annotations

import importlib.util

from kmmlu_fast.core.errors import ModelError, TrainError
from kmmlu_fast.machine.gpus import list_gpus
from kmmlu_fast.machine.host import best_cpu_dtype, detect_machine
from kmmlu_fast.machine.memory_fit import BFLOAT16, GIB
from kmmlu_fast.machine.model_size import ModelFacts, find_model_facts, find_model_folder
from kmmlu_fast.training.config import PROJECTIONS, TrainConfig
from kmmlu_fast.training.initial_adapter import take_initial_adapter
from kmmlu_fast.training.memory import MemoryPlan, plan_memory
from kmmlu_fast.training.memory_forecast import LABELS, is_trainable_as_stored, shape_from_facts
from kmmlu_fast.training.model_shape import ModelShape, read_model_shape
from kmmlu_fast.training.training_dtype import overflows_in_float16, predict_training_dtype

SHORTER = (768, 512, 384, 256)  # row lengths to try if the requested one does not fit


def preview_training(config: TrainConfig) -> list[str]:
    """The plan part by part. ModelError if the model's counts are unavailable, TrainError if nothing fits."""
    config = take_initial_adapter(config)
    facts = find_model_facts(config.model)
    if facts is None or not (facts.layers and facts.hidden):
        raise ModelError(
            f"--model {config.model}: its config.json is not available (no such directory, not in the cache,"
            " or no network); give a local directory, or connect to a network"
        )
    if not is_trainable_as_stored(facts):
        raise ModelError(f"--model {config.model}: is quantised already; train on its 16-bit original")
    counted = _count_on_meta_device(config)
    shape = counted or shape_from_facts(facts, config.r)
    four_bit = config.load_in_4bit or facts.quantised
    cpu, free_bytes, device, capability = _choose_device(config)
    dtype = predict_training_dtype(capability, facts.model_types, best_cpu_dtype())
    plan = _find_fitting_plan(config, shape, four_bit, free_bytes, cpu, device, dtype)
    used = plan.total_bytes / plan.available_bytes
    speed = "activations computed twice" if plan.checkpointing else "activations kept (faster)"
    kind = "4-bit QLoRA" if four_bit else "LoRA on 16-bit weights"
    parameters = shape.total - shape.lora if counted else facts.parameters
    lines = [
        f"{config.model}: {parameters / 1e9:.2f} B parameters, {kind}, rank {config.r}, on {device}",
        _describe_dtype(config, facts, dtype),
        (
            f"fits: {plan.total_bytes / GIB:.1f} of {plan.available_bytes / GIB:.1f} GiB ({used:.0%}),"
            f" {plan.seq_length} tokens per row, micro-batch {plan.micro_batch} x accumulation"
            f" {plan.accumulation}, {speed}"
        ),
    ]
    for name, size in sorted(plan.parts_bytes.items(), key=lambda part: -part[1]):
        lines.append(f"  {name:<22} {size / GIB:6.2f} GiB")
    if plan.seq_length != config.max_seq_length:
        lines.append(f"{config.max_seq_length} tokens per row do not fit: --max-seq-length {plan.seq_length}")
    if counted:
        lines.append(f"trainable: {shape.lora:,} parameters, on {', '.join(shape.targets)}")
    elif sorted(config.target_modules) != sorted(PROJECTIONS):
        lines.append("computed for all seven projections; with fewer it is a little less")
    lines.append(
        "Computed from the model's counts, not measured; training prints its own plan, and its measured peak."
    )
    return lines


def _count_on_meta_device(config: TrainConfig) -> ModelShape | None:
    """Training's own count of the model and its adapter, if the libraries for it are installed and its
    config.json is on this computer. ModelError for a target module that the model does not have."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "peft")):
        return None
    folder = find_model_folder(config.model)
    if folder is None:
        return None
    code = config.trust_remote_code
    try:
        return read_model_shape(folder, config.r, config.target_modules, None, code, use_dora=config.use_dora)
    except ModelError as error:
        if "--target-modules" in str(error):
            raise
        return None  # an architecture that transformers does not know: by its config.json alone


def _describe_dtype(config: TrainConfig, facts: ModelFacts, dtype: str) -> str:
    """The type of the computation, and why; for a GPU that is not here, what an old one would take."""
    overflows = overflows_in_float16(facts.model_types)
    if config.gpu_memory:
        older = "float32: this family overflows in float16" if overflows else "float16"
        return f"computes in {dtype}; on a GPU before Ampere (T4, RTX 20) in {older}"
    reason = ""
    if dtype == "float32" and overflows:
        reason = ": this family overflows in float16, and the device has no bfloat16"
    return f"computes in {dtype}{reason}"


def _choose_device(config: TrainConfig) -> tuple[bool, int, str, tuple[int, int] | None]:
    """(is a CPU, bytes to plan with, name, compute capability); a GPU that is not here is taken for a new
    one."""
    limit_bytes = int(config.max_memory_gib * GIB) if config.max_memory_gib else 1 << 62
    if config.gpu_memory:
        free_bytes = int(config.gpu_memory * GIB)
        return False, min(free_bytes, limit_bytes), f"a GPU with {config.gpu_memory:g} GiB", BFLOAT16
    gpus = list_gpus()
    if gpus:
        return False, min(gpus[0].free_bytes, limit_bytes), gpus[0].name, gpus[0].capability
    return True, min(detect_machine().memory_free_bytes, limit_bytes), "the CPU", None


def _find_fitting_plan(
    config: TrainConfig,
    shape: ModelShape,
    four_bit: bool,
    free_bytes: int,
    cpu: bool,
    device: str,
    dtype: str,
) -> MemoryPlan:
    first: TrainError | None = None
    for length in (config.max_seq_length, *[n for n in SHORTER if n < config.max_seq_length]):
        try:
            return plan_memory(
                shape,
                length,
                config.effective_batch,
                free_bytes,
                four_bit=four_bit,
                cpu=cpu,
                device="CPU" if cpu else device,
                float32=dtype == "float32",
                labels=LABELS,
            )
        except TrainError as error:
            first = first or error
    assert first is not None
    raise first
