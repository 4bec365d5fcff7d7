"""The types of those parts of metrics.json that only some runs have: reasoning, rotations, a shift.

In: a JSON document. Out: nothing, or RunError that names the first value that no evaluation writes. Unknown
keys are accepted, for later versions may add some. Knows nothing of what is shown of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.untrusted_text import bounded_repr


class _Part(BaseModel, allow_inf_nan=False):
    model_config = ConfigDict(strict=True)


class _ReadBy(_Part):
    strict: int
    lenient: int
    forced: int
    unparsed: int
    direct: int


class _Way(_Part):
    way: Literal["direct", "budgeted", "what_if", "full", "full_unforced"]
    below: float | None
    accuracy: float
    reasoned: int
    output_tokens: int
    seconds: float | None
    estimated: bool


class _Samples(_Part):
    num_samples: int
    accuracy_first_sample: float
    accuracy_majority: float
    accuracy_any_sample: float
    agreement: float


class _Rotations(_Part):
    accuracy_raw: float
    accuracy_debiased: float
    changed: int
    letter_share_raw: dict[str, float]
    letter_share_debiased: dict[str, float]
    letter_share_answer: dict[str, float]


class _Reasoning(_Part):
    read_by: _ReadBy | None = None
    rungs: dict[str, int] = {}
    ways: list[_Way] = []
    samples: _Samples | None = None
    rotations: _Rotations | None = None


class _Shift(_Part):
    largest_nats: float


class _Engine(_Part):
    start_sec: float = 0.0
    prefix_cache_hit_rate: float = 0.0


class _OptionalMetrics(_Part):
    reasoning: _Reasoning | None = None
    adapter_shift: _Shift | None = None
    engine: _Engine | None = None
    accuracy_debiased: float | None = None
    accuracy_without_forced: float | None = None
    balanced_accuracy: float | None = None
    forced: int | None = None


def check_optional_metrics(metrics: dict[str, Any], path: Path) -> None:
    """RunError if a part is there and an evaluation cannot have written it."""
    try:
        found = _OptionalMetrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join(map(str, first["loc"]))
        raise RunError(
            f"{path}: {bounded_repr(where)}: {bounded_repr(first['msg'])}; run eval with --overwrite"
        ) from error
    reasoning = found.reasoning
    if reasoning and reasoning.read_by is None and "read_by" in (metrics.get("reasoning") or {}):
        raise RunError(f"{path}: 'reasoning: read_by' is null; run eval with --overwrite")
    if found.forced and found.accuracy_without_forced is None:
        raise RunError(f"{path}: lacks accuracy_without_forced; run eval with --overwrite")
