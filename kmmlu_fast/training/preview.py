"""``train --plan``: what would fit, in a second, without torch, rows or even the GPU.

In: a ``TrainConfig``, optionally with a GPU's GiB. Out: lines of text, computed from the counts in the
model's config.json, not measured. Knows nothing of data.
"""

from __future__ import annotations

from kmmlu_fast.core.errors import ModelError, TrainError
from kmmlu_fast.machine.gpus import list_gpus
from kmmlu_fast.machine.host import best_cpu_dtype, detect_machine
from kmmlu_fast.machine.memory_fit import GIB
from kmmlu_fast.machine.model_size import ModelFacts, find_model_facts
from kmmlu_fast.training.config import PROJECTIONS, TrainConfig
from kmmlu_fast.training.memory import MemoryPlan, plan_memory
from kmmlu_fast.training.memory_forecast import LABELS, shape_from_facts

SHORTER = (768, 512, 384, 256)  # row lengths to try if the requested one does not fit


def preview_training(config: TrainConfig) -> list[str]:
    """The plan part by part. ModelError if the model's counts are unavailable, TrainError if nothing fits."""
    facts = find_model_facts(config.model)
    if facts is None or not (facts.layers and facts.hidden):
        raise ModelError(
            f"--model {config.model}: its config.json is not available (no such directory, not in the cache,"
            " or no network); give a local directory, or connect to a network"
        )
    if facts.quantised:
        raise ModelError(f"--model {config.model}: is quantised already; train on its 16-bit original")
    cpu, free_bytes, device = _choose_device(config)
    plan = _find_fitting_plan(config, facts, free_bytes, cpu, device)
    used = plan.total_bytes / plan.available_bytes
    speed = "activations computed twice" if plan.checkpointing else "activations kept (faster)"
    kind = "4-bit QLoRA" if config.load_in_4bit else "LoRA on 16-bit weights"
    lines = [
        f"{config.model}: {facts.parameters / 1e9:.2f} B parameters, {kind}, rank {config.r}, on {device}",
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
    if sorted(config.target_modules) != sorted(PROJECTIONS):
        lines.append("computed for all seven projections; with fewer it is a little less")
    lines.append(
        "Computed from the model's counts, not measured; training prints its own plan, and its measured peak."
    )
    return lines


def _choose_device(config: TrainConfig) -> tuple[bool, int, str]:
    """(is a CPU, bytes to plan with, name)."""
    limit_bytes = int(config.max_memory_gib * GIB) if config.max_memory_gib else 1 << 62
    if config.gpu_memory:
        free_bytes = int(config.gpu_memory * GIB)
        return False, min(free_bytes, limit_bytes), f"a GPU with {config.gpu_memory:g} GiB"
    gpus = list_gpus()
    if gpus:
        return False, min(gpus[0].free_bytes, limit_bytes), gpus[0].name
    return True, min(detect_machine().memory_free_bytes, limit_bytes), "the CPU"


def _find_fitting_plan(
    config: TrainConfig, facts: ModelFacts, free_bytes: int, cpu: bool, device: str
) -> MemoryPlan:
    first: TrainError | None = None
    for length in (config.max_seq_length, *[n for n in SHORTER if n < config.max_seq_length]):
        try:
            return plan_memory(
                shape_from_facts(facts, config.r),
                length,
                config.effective_batch,
                free_bytes,
                four_bit=config.load_in_4bit,
                cpu=cpu,
                device="CPU" if cpu else device,
                float32=cpu and best_cpu_dtype() == "float32",
                labels=LABELS,
            )
        except TrainError as error:
            first = first or error
    assert first is not None
    raise first
