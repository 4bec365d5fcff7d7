"""The type that Unsloth will train in, before anything is loaded.

In: a GPU's compute capability (None: the CPU), the model types in a config.json. Out: bfloat16, float16 or
float32. After loading, ``lora_model.half_precision_dtype`` follows what Unsloth did. Knows nothing of memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmmlu_fast.machine.memory_fit import BFLOAT16

# Families that overflow in float16, as Unsloth 2026.10.9 lists them (model_lists.py, FORCE_FLOAT32;
# a test compares). An entry is a whole type without _ and -, or a part of the types joined by commas.
OVERFLOW_IN_FLOAT16 = (
    "embedding_gemma2",
    "embedding_gemma2_text",
    "gemma3,",
    "gemma3text",
    "gemma3n",
    "gemma4",
    "gemma4text",
    "glm4_moe",
    "glm4_moe_lite",
    "gpt_oss",
    "qwen3_5",
    "qwen3_moe",
)


def overflows_in_float16(model_types: Sequence[str]) -> bool:
    """Whether Unsloth trains the family in float32 where there is no bfloat16."""
    whole = {name.lower().replace("_", "").replace("-", "") for name in model_types}
    joined = ",".join(model_types).lower() + ","
    return any(entry in whole or entry in joined for entry in OVERFLOW_IN_FLOAT16)


def predict_training_dtype(
    capability: tuple[int, int] | None, model_types: Sequence[str], cpu_dtype: str
) -> str:
    """Unsloth's choice on a GPU of this capability, or on a CPU whose best type is ``cpu_dtype``."""
    if capability is None:
        return cpu_dtype
    if capability >= BFLOAT16:
        return "bfloat16"
    return "float32" if overflows_in_float16(model_types) else "float16"
