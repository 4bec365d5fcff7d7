"""Follows a training: its log, the held-out measurements, the best adapter so far, warnings, early stopping.

In: events of the training loop and a function that measures on the held-out rows. Out: ``train_log.jsonl``
(one JSON object per line; ``kind`` is "step" or "held_out"), progress lines, the best adapter on disk,
warnings, when to stop. What a measurement shows is decided in ``held_out``. Knows nothing of Unsloth or TRL.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kmmlu_fast.analysis.training_look import Look, StopRule
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.models.adapters import read_training_log
from kmmlu_fast.training.held_out import (
    HeldOutMeasurement,
    collapse_warnings,
    describe_measurement,
    is_better,
    look_at_held_out,
    selection_notes,
)

# Steps in a row whose float16 gradients may overflow: each halves the loss scale, which starts at 65,536.
OVERFLOWS = 20


class Monitor:
    """Follows one training. ``measure`` reads the held-out rows; ``save_best`` saves the current adapter."""

    def __init__(
        self,
        log_path: Path,
        *,
        total_steps: int,
        tokens_by_step: list[int],
        keep: str,
        measure_every: int,
        early_stopping: int | None,
        measure: Callable[[int], HeldOutMeasurement] | None,
        save_best: Callable[[HeldOutMeasurement], None],
        publish: Callable[[HeldOutMeasurement], None] = lambda measurement: None,
        scaled: bool = False,
        stop_when: StopRule | None = None,
    ) -> None:
        """``publish`` hands a measurement on to trackers. ``scaled``: float16, whose loss scale is found by
        overflowing. Such a step changes no weight and is not a divergence.
        """
        self._log_path = log_path
        self._total_steps = total_steps
        self._tokens_by_step = tokens_by_step
        self._keep = keep
        self._measure_every = measure_every
        self._early_stopping = early_stopping
        self._measure = measure
        self._save_best = save_best
        self._publish = publish
        self._scaled = scaled
        self._stop_when = stop_when
        self._overflows = 0
        self._measuring_sec = 0.0
        self._started_sec = 0.0
        self._first_step = 0
        self.base: HeldOutMeasurement | None = None
        self.best: HeldOutMeasurement | None = None
        self.last: HeldOutMeasurement | None = None
        self.stopped_early = False
        self.stop_reason: str | None = None  # of stop_when
        self.begun = False  # whether the loop has started, a checkpoint's state loaded
        self._without_gain = 0
        self._measured = 0  # states of the adapter, the base not counted

    def start(self, step: int) -> None:
        """Call before the first step. A resumed run drops the log after its checkpoint and reads the rest."""
        self._first_step, self.begun = step, True
        for record in rewind_log(self._log_path, step):
            if record["kind"] == "held_out":
                self._resume_measurement(record)
        if self._measure is not None and self.base is None:
            self._record_measurement(self._measure(0))
        self._started_sec = time.monotonic()
        self._measuring_sec = 0.0

    def _resume_measurement(self, record: dict[str, Any]) -> None:
        fields = {name: record[name] for name in HeldOutMeasurement.__slots__ if name in record}
        try:
            measurement, _ = self._compare_with_base(HeldOutMeasurement(**fields))
            self._update_best(measurement, record["best"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainError(
                f"{self._log_path}: the held-out measurement of step {record['step']} is damaged; train into"
                " a new directory"
            ) from error

    def finish_step(self, step: int) -> bool:
        """Call after an optimiser step. True: stop training now."""
        if self._measure is None or (step % self._measure_every and step != self._total_steps):
            return False
        before_sec = time.monotonic()
        look = self._record_measurement(self._measure(step))
        self._measuring_sec += time.monotonic() - before_sec
        if step == self._total_steps:
            return False
        if look is not None:
            self.stop_reason = look.stop_reason(self._stop_when)
        if self.stop_reason:
            self.stopped_early = True
            log_note(f"stopped at step {step}: {self.stop_reason}")
        elif self._early_stopping and self._without_gain >= self._early_stopping:
            self.stopped_early = True
            log_note(f"early stop at step {step}: {self._without_gain} measurements without an improvement")
        return self.stopped_early

    def record_step(self, step: int, values: dict[str, Any]) -> None:
        """Log a step's values from TRL with speed and time left. TrainError if the loss is not finite, or the
        gradients are not: at once, or in float16 after OVERFLOWS steps in a row.
        """
        if "loss" not in values:
            return
        loss, grad_norm = float(values["loss"]), float(values.get("grad_norm", 0.0))
        finite = math.isfinite(grad_norm)
        self._overflows = 0 if finite else self._overflows + 1
        if not math.isfinite(loss) or self._overflows > (OVERFLOWS if self._scaled else 0):
            raise TrainError(
                f"step {step}: loss {loss}, gradient norm {grad_norm}: training diverged and was stopped; "
                "lower --learning-rate, or look for broken rows in the data, and train into a new directory"
            )
        training_sec = max(time.monotonic() - self._started_sec - self._measuring_sec, 1e-9)
        done = step - self._first_step
        tokens = sum(self._tokens_by_step[self._first_step : step])
        eta_sec = training_sec / max(done, 1) * (self._total_steps - step)
        tokens_per_sec = tokens / training_sec
        record = {
            "kind": "step",
            "step": step,
            "loss": loss,
            "learning_rate": float(values.get("learning_rate", 0.0)),
            "grad_norm": grad_norm if finite else None,
            "tokens": sum(self._tokens_by_step[:step]),
            "tokens_per_sec": tokens_per_sec,
            "training_sec": training_sec,
            "eta_sec": eta_sec,
        }
        append_log_record(self._log_path, record)
        if step % max(self._total_steps // 20, 1) == 0 or step in (1, self._total_steps):
            log_note(
                f"step {step}/{self._total_steps}  loss {loss:.4f}  lr {record['learning_rate']:.2e}  "
                f"{tokens_per_sec:.0f} tokens/s  ETA {_format_duration(eta_sec)}"
            )

    def warnings(self) -> list[str]:
        kept = self.last if self._keep == "last" else self.best
        if not (self.base and kept):
            return []
        warnings = collapse_warnings(self.base, kept)
        if self.stop_reason and self.last:
            warnings.insert(0, f"stopped at step {self.last.step} of {self._total_steps}: {self.stop_reason}")
        if self._keep != "last":
            warnings += selection_notes(self.base, kept, self._measured, self._keep)
        return warnings

    def _compare_with_base(self, measurement: HeldOutMeasurement) -> tuple[HeldOutMeasurement, Look | None]:
        if self.base is None or measurement.step == 0:
            return measurement, None
        return look_at_held_out(self.base, measurement, self._measured + 1)

    def _record_measurement(self, measurement: HeldOutMeasurement) -> Look | None:
        """Log, publish and tell a new measurement, and save the adapter if it is the best."""
        measurement, look = self._compare_with_base(measurement)
        best = measurement.step > 0 and is_better(measurement, self.best, self._keep)
        if best and self._keep != "last":
            # Before the log entry: after a kill in between, the measurement is repeated.
            self._save_best(measurement)
        self._update_best(measurement, best)
        append_log_record(self._log_path, {"kind": "held_out", **asdict(measurement), "best": best})
        self._publish(measurement)
        log_note(describe_measurement(measurement, best))
        return look

    def _update_best(self, measurement: HeldOutMeasurement, best: bool) -> None:
        if measurement.step == 0:
            self.base = measurement
            return
        self.last = measurement
        self._measured += 1
        self._without_gain = 0 if best else self._without_gain + 1
        if best:
            self.best = measurement


def append_log_record(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_log_line(record))


def rewind_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Cut the log back to ``step`` and return the rest: the steps after a checkpoint are done again."""
    kept = [record for record in read_training_log(path) if record["step"] <= step]
    write_bytes_atomically(path, "".join(map(_log_line, kept)).encode())
    return kept


def _log_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _format_duration(seconds: float) -> str:
    minutes, sec = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{sec:02d}"
