"""``train --plan``: what would fit on a card that need not be here, in a second, without torch and without
rows.

In: a ``TrainConfig`` and optionally GiB of a card. Out: lines of text. Counts come from the model's
config.json; computed, not measured.
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

SHORTER = (768, 512, 384, 256)  # row lengths tried where the one asked for does not fit


def preview_training(config: TrainConfig) -> list[str]:
    """The plan part by part and the command; ModelError where the model's counts are not to be
    had, TrainError where nothing fits.
    """
    facts = find_model_facts(config.model)
    if facts is None or not (facts.layers and facts.hidden):
        raise ModelError(
            f"--model {config.model}: its config.json is not at hand (no such directory, not in the cache, or"
            " no network); name a local directory, or ask where there is a network"
        )
    if facts.quantised:
        raise ModelError(f"--model {config.model}: is quantised already; train on its 16-bit original")
    cpu, free_bytes, device = _choose_device(config)
    found = _find_fitting_plan(config, facts, free_bytes, cpu, device)
    used = found.total_bytes / found.available_bytes
    kind = "4-bit QLoRA" if config.load_in_4bit else "LoRA on 16-bit weights"
    lines = [
        f"{config.model}: {facts.parameters / 1e9:.2f} B parameters, {kind}, rank {config.r}, on {device}",
        (
            f"fits: {found.total_bytes / GIB:.1f} of {found.available_bytes / GIB:.1f} GiB ({used:.0%}),"
            f" {found.seq_length} tokens a row, micro-batch {found.micro_batch} x accumulation"
            f" {found.accumulation},"
            f" {'activations computed twice' if found.checkpointing else 'activations kept (faster)'}"
        ),
        *[
            f"  {name:<22} {size / GIB:6.2f} GiB"
            for name, size in sorted(found.parts_bytes.items(), key=lambda part: -part[1])
        ],
    ]
    if found.seq_length != config.max_seq_length:
        lines.append(f"{config.max_seq_length} tokens a row do not fit: --max-seq-length {found.seq_length}")
    if sorted(config.target_modules) != sorted(PROJECTIONS):
        lines.append("computed for all seven projections; with fewer it is a little less")
    lines.append(
        "Computed from the model's counts, not measured; training prints its own plan again, and its peak"
        " beside it."
    )
    return lines


def _choose_device(config: TrainConfig) -> tuple[bool, int, str]:
    """Whether it is a CPU, bytes to plan with, and its name."""
    limit = int(config.max_memory_gib * GIB) if config.max_memory_gib else None
    if config.gpu_memory:
        return (
            False,
            min(int(config.gpu_memory * GIB), limit or 1 << 62),
            f"a card of {config.gpu_memory:g} GiB",
        )
    if card := next(iter(list_gpus()), None):
        return False, min(card.free_bytes, limit or 1 << 62), card.name
    return True, min(detect_machine().memory_free_bytes, limit or 1 << 62), "the CPU"


def _find_fitting_plan(
    config: TrainConfig, facts: ModelFacts, free_bytes: int, cpu: bool, device: str
) -> MemoryPlan:
    first: TrainError | None = None
    for length in (
        config.max_seq_length,
        *[shorter for shorter in SHORTER if shorter < config.max_seq_length],
    ):
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
