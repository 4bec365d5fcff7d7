"""The memory plan of QLoRA training on a machine, before anything is installed.

In: a model's counts, free memory. Out: ``TrainingForecast``. The same plan as training's own (``memory``),
with counts from config.json instead of torch's meta device. Computed, not measured. Knows nothing of data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.machine.memory_fit import GIB
from kmmlu_fast.machine.model_size import ModelFacts
from kmmlu_fast.training.memory import MemoryPlan, plan_memory
from kmmlu_fast.training.model_shape import ModelShape
from kmmlu_fast.training.training_dtype import predict_training_dtype

RANK = 16
EFFECTIVE_BATCH = 16
LENGTHS = (1024, 512, 256)  # the first is the default; KMMLU's rows are about 250 tokens
LABELS = 2  # trained tokens per row: a letter and end-of-text, for rows without rationales
# Smaller models should train in 16 bit. 270 M suffered in 4 bit, QLoRA was made for 7 B and more; the limit
# between is a guess.
SMALL_PARAMETERS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """The plan for the longest of LENGTHS that fits; if none does, ``plan`` is None and ``reason`` is set."""

    plan: MemoryPlan | None
    four_bit: bool
    dtype: str
    reason: str

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of kmmlu_fast.train that differ from its defaults."""
        if self.plan is None:
            return ()
        flags = [] if self.four_bit else ["--no-load-in-4bit"]
        if self.plan.seq_length != LENGTHS[0]:
            flags += ["--max-seq-length", str(self.plan.seq_length)]
        return tuple(flags)

    @property
    def line(self) -> str:
        """The forecast in one line."""
        if self.plan is None:
            return self.reason
        kind = f"4-bit QLoRA in {self.dtype}" if self.four_bit else f"LoRA in {self.dtype}, 16-bit weights"
        size = f"{self.plan.total_bytes / GIB:.1f} of {self.plan.available_bytes / GIB:.1f} GiB"
        return f"{kind}: {self.plan.seq_length} tokens per row, micro-batch {self.plan.micro_batch} ({size})"

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json() if self.plan else None,
            "four_bit": self.four_bit,
            "dtype": self.dtype,
            "reason": self.reason,
        }


def shape_from_facts(model: ModelFacts, r: int = RANK) -> ModelShape:
    """The model's shape, with an adapter on all linear layers of a decoder."""
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    sides = (
        (model.hidden, queries),
        (model.hidden, keys),
        (model.hidden, keys),
        (queries, model.hidden),
        *((model.hidden, model.intermediate),) * model.mlp_matrices,
    )
    return ModelShape(
        layers=model.layers,
        hidden=model.hidden,
        intermediate=model.intermediate,
        heads=model.heads,
        vocabulary=model.vocabulary,
        quantised=model.linear - model.experts,
        unquantised=model.unquantised_parameters + model.experts,
        largest_linear=model.hidden * max(model.intermediate, queries),
        lora=model.layers * sum(r * (inputs + outputs) for inputs, outputs in sides),
    )


def is_trainable_as_stored(model: ModelFacts) -> bool:
    """Whether the weights are in 16 or 32 bit, or in bitsandbytes' 4 bit, on which QLoRA trains as they
    are."""
    return not model.quantised or model.stored_as == "bitsandbytes"


def forecast_training(
    model: ModelFacts | None,
    free_bytes: int,
    *,
    capability: tuple[int, int] | None,
    cpu_dtype: str = "float32",
) -> TrainingForecast:
    """What fits in ``free_bytes`` of the GPU with this ``capability``, or of the CPU if that is None."""
    if model is None:
        return TrainingForecast(None, True, cpu_dtype, "unknown: the model's size is not known")
    four_bit = model.parameters >= SMALL_PARAMETERS or model.quantised
    dtype = predict_training_dtype(capability, model.model_types, cpu_dtype)
    if not is_trainable_as_stored(model):
        return TrainingForecast(
            None, True, dtype, f"{model.name} is quantised already: train on its 16-bit original"
        )
    if not (model.layers and model.hidden):
        return TrainingForecast(None, four_bit, dtype, "unknown: the model's config.json is not available")
    reason = ""
    for length in LENGTHS:
        try:
            plan = plan_memory(
                shape_from_facts(model),
                length,
                EFFECTIVE_BATCH,
                free_bytes,
                four_bit=four_bit,
                cpu=capability is None,
                float32=dtype == "float32",
                device="CPU" if capability is None else "GPU",
                labels=LABELS,
            )
        except TrainError as error:
            reason = reason or str(error)
        else:
            return TrainingForecast(plan, four_bit, dtype, "")
    return TrainingForecast(None, four_bit, dtype, reason)
