"""Which type ``--dtype auto`` is for a model on this device, settled before anything starts.

In: engine options and a model. Out: the options with the type, and a note if it is not the model's own.
Knows nothing of questions.
"""

from __future__ import annotations

from typing import TypeVar

from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.machine.device import gpu_capability, resolve_auto_dtype
from kmmlu_fast.models.model import Model

OptionsT = TypeVar("OptionsT", bound=EngineOptions)


def resolve_compute_type(options: OptionsT, model: Model) -> tuple[OptionsT, str | None]:
    """The options with ``--dtype auto`` resolved for this device, and a note if the choice is unusual."""
    computes_here = find_engine_kind(options.engine).computes_here and not options.ray_address
    if options.dtype != "auto" or not computes_here:
        return options, None
    model_config = model.config()
    model_type = str(model_config.get("model_type", ""))
    quantized = bool(model_config.get("quantization_config"))
    dtype, reason = resolve_auto_dtype(gpu_capability(), model_type, quantized)
    return options.model_copy(update={"dtype": dtype}), reason
