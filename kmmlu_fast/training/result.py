"""The measurements of one training, for the adapter's card.

In: the trainer's measurements. Out: one frozen record. Knows nothing of how they were taken.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.training.held_out import HeldOutMeasurement


@dataclass(frozen=True, slots=True)
class PausedTraining:
    """A training that was paused on request (``--stop-after``)."""

    step: int  # made so far
    planned_steps: int
    checkpoint: Path  # a loadable adapter, and what continuing needs


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The measurements of one training. ``train_sec`` excludes loading; ``tokens`` exclude padding."""

    steps: int
    planned_steps: int
    resumed_from: int
    rows_seen: int
    tokens: int
    final_loss: float  # of the last step
    train_sec: float
    load_sec: float
    tokens_per_sec: float
    peak_bytes: int
    loaded_bytes: int  # in use before the first step
    trainable_parameters: int
    total_parameters: int
    four_bit: bool
    dtype: str
    device: str
    base: HeldOutMeasurement | None
    kept: HeldOutMeasurement | None
    kept_step: int
    stopped_early: bool
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
