"""What QLoRA training would look like on a machine, before anything is installed: the memory plan from
counts alone.

In: a model's counts, free memory. Out: ``TrainingForecast``. The same plan as training's own (``memory``),
fed with counts from config.json in place of torch's meta device. Computed, not measured. Knows nothing of
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.machine.memory_fit import BFLOAT16, GIB
from kmmlu_fast.machine.model_size import ModelFacts
from kmmlu_fast.training.memory import MemoryPlan, plan_memory
from kmmlu_fast.training.model_shape import ModelShape

RANK = 16
EFFECTIVE_BATCH = 16
LENGTHS = (1024, 512, 256)  # the first is the default; KMMLU's rows are about 250 tokens
LABELS = (
    2  # tokens trained on in a row: a letter and an end, as kmmlu_fast.sample writes rows without rationales
)
SMALL_PARAMETERS = 2_000_000_000  # below, training's own warning says to leave 4 bit


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """The longest of LENGTHS that fits and its plan; ``plan`` None with the reason where none does."""

    plan: MemoryPlan | None
    four_bit: bool
    dtype: str
    reason: str

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of kmmlu_fast.train that differ from its defaults."""
        if self.plan is None:
            return ()
        length = () if self.plan.seq_length == LENGTHS[0] else ("--max-seq-length", str(self.plan.seq_length))
        return (*(() if self.four_bit else ("--no-load-in-4bit",)), *length)

    @property
    def line(self) -> str:
        """One line for a person."""
        if self.plan is None:
            return self.reason
        kind = f"4-bit QLoRA in {self.dtype}" if self.four_bit else f"LoRA in {self.dtype}, 16-bit weights"
        size = f"{self.plan.total_bytes / GIB:.1f} of {self.plan.available_bytes / GIB:.1f} GiB"
        return f"{kind}: {self.plan.seq_length} tokens a row, micro-batch {self.plan.micro_batch} ({size})"

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json() if self.plan else None,
            "four_bit": self.four_bit,
            "dtype": self.dtype,
            "reason": self.reason,
        }


def shape_from_facts(model: ModelFacts, r: int = RANK) -> ModelShape:
    """The plan's shape, with an adapter on all seven projections of a Llama-like layer."""
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    sides = (
        (model.hidden, queries),
        (model.hidden, keys),
        (model.hidden, keys),
        (queries, model.hidden),
        *((model.hidden, model.intermediate),) * 3,
    )
    return ModelShape(
        layers=model.layers,
        hidden=model.hidden,
        intermediate=model.intermediate,
        heads=model.heads,
        vocabulary=model.vocabulary,
        quantised=model.linear,
        unquantised=model.unquantised_parameters,
        largest_linear=model.hidden * max(model.intermediate, queries),
        lora=model.layers * sum(r * (inputs + outputs) for inputs, outputs in sides),
    )


def forecast_training(
    model: ModelFacts | None,
    free_bytes: int,
    *,
    capability: tuple[int, int] | None,
    cpu_dtype: str = "float32",
) -> TrainingForecast:
    """What fits in ``free_bytes`` of the card (``capability``), or of the CPU where that is None."""
    if model is None:
        return TrainingForecast(None, True, cpu_dtype, "not known: the model's size is not")
    four_bit = model.parameters >= SMALL_PARAMETERS
    dtype = cpu_dtype if capability is None else "bfloat16" if capability >= BFLOAT16 else "float16"
    if model.quantised:
        return TrainingForecast(
            None, True, dtype, f"{model.name} is quantised already: train on its 16-bit original"
        )
    if not (model.layers and model.hidden):
        return TrainingForecast(None, four_bit, dtype, "not known: its config.json is not at hand")
    reason = ""
    for length in LENGTHS:
        try:
            found = plan_memory(
                shape_from_facts(model),
                length,
                EFFECTIVE_BATCH,
                free_bytes,
                four_bit=four_bit,
                cpu=capability is None,
                float32=capability is None and dtype == "float32",
                device="CPU" if capability is None else "GPU",
                labels=LABELS,
            )
        except TrainError as error:
            reason = reason or str(error)
        else:
            return TrainingForecast(found, four_bit, dtype, "")
    return TrainingForecast(None, four_bit, dtype, reason)
