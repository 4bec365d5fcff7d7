"""QLoRA by Unsloth and TRL: one straight line, the same on a GPU and on a CPU.

In: a ``TrainSet`` of token ids, the model's path, settings, a memory plan. Out: the trained adapter in
``work_dir`` (PEFT's files) and a ``TrainResult`` with what was measured. Knows nothing of wording, leakage or
cards.

Unsloth is imported first and only here, in the training process: importing it patches transformers, TRL and
PEFT. Rows reach TRL as token ids with labels and the order is laid out beforehand
(``order.order_rows``), so that neither TRL nor Unsloth tokenises, shuffles or adds anything: what is
trained is what was encoded.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.machine.device_memory import peak_bytes, release_freed_memory
from kmmlu_fast.training.arguments import OptimiserSteps, plan_optimiser_steps, sft_arguments
from kmmlu_fast.training.checkpoints import (
    checkpoint_step,
    drop_older_adapters,
    keep_adapter,
    last_checkpoint,
    mark_complete,
    save_best,
)
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.encoded import MASKED, EncodedRow
from kmmlu_fast.training.encoding import TrainSet
from kmmlu_fast.training.held_out import HeldOutMeasurement
from kmmlu_fast.training.label_loss import enable_labelled_loss, make_labelled_trainer
from kmmlu_fast.training.lora_model import (
    count_parameters,
    find_compute_device,
    half_precision_dtype,
    is_four_bit,
    keep_adapter_in_float32,
    load_lora_model,
)
from kmmlu_fast.training.measure import measure_held_out
from kmmlu_fast.training.memory import MemoryPlan
from kmmlu_fast.training.monitor import Monitor
from kmmlu_fast.training.result import TrainResult


def train_lora_adapter(
    config: TrainConfig,
    model_path: str,
    revision: str | None,
    tokenizer: Any,
    data: TrainSet,
    plan: MemoryPlan,
    work_dir: Path,
) -> TrainResult:
    """Train, measure, keep the best; the adapter ends in ``work_dir/adapter``, the log in
    ``train_log.jsonl`` beside ``work_dir``.
    """
    start_sec = time.monotonic()
    checkpoint = last_checkpoint(work_dir) if config.resume else None
    held = _set_up_training(config, model_path, revision, tokenizer, data, plan, work_dir)
    steps, trainer, monitor, (trainable, total) = held.steps, held.trainer, held.monitor, held.parameters
    log_note(
        f"training {trainable:,} of {total:,} parameters ({trainable / total:.2%}), {len(data.order)} rows in"
        f" {steps.total} steps" + (f", continued after {checkpoint.name}" if checkpoint else "")
    )
    loaded_bytes = _measure_loaded_bytes(held.on_cpu)
    train_start_sec = time.monotonic()
    _run_steps(trainer, steps, plan, checkpoint)
    train_sec = time.monotonic() - train_start_sec
    done, first = _steps_done(held), checkpoint_step(checkpoint) if checkpoint else 0
    kept = keep_adapter(held.model, work_dir, monitor, config.keep)
    return TrainResult(
        steps=done,
        planned_steps=steps.total,
        resumed_from=first,
        rows_seen=min(done * config.effective_batch, len(data.order)),
        tokens=sum(steps.tokens[:done]),
        final_loss=_last_loss(trainer),
        train_sec=train_sec,
        load_sec=train_start_sec - start_sec,
        tokens_per_sec=sum(steps.tokens[first:done]) / max(train_sec, 1e-9),
        peak_bytes=peak_bytes(held.on_cpu),
        loaded_bytes=loaded_bytes,
        trainable_parameters=trainable,
        total_parameters=total,
        four_bit=is_four_bit(held.model),
        dtype=held.half or "float32",
        device=plan.device,
        base=monitor.base,
        kept=kept,
        kept_step=kept.step if kept else done,
        stopped_early=monitor.stopped_early,
        warnings=monitor.warnings(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TrainingSetup:
    """A training before its first step."""

    model: Any
    trainer: Any
    monitor: Monitor
    steps: OptimiserSteps
    half: str | None  # the 16-bit type of mixed precision
    on_cpu: bool
    parameters: tuple[int, int]  # trainable, all


def _set_up_training(
    config: TrainConfig,
    model_path: str,
    revision: str | None,
    tokenizer: Any,
    data: TrainSet,
    plan: MemoryPlan,
    work_dir: Path,
) -> _TrainingSetup:
    """Load the model and set up TRL over the rows, checked to train on these very tokens."""
    with report_wait("loading the model"):
        model = load_lora_model(config, model_path, revision, plan.checkpointing)
    steps, device = plan_optimiser_steps(data, config.effective_batch), find_compute_device(model)
    half = half_precision_dtype(device.type)
    monitor = _make_monitor(config, model, data, plan, steps, half, work_dir)
    trainer = _make_trainer(
        config, model, tokenizer, data, sft_arguments(config, plan, steps, half, work_dir)
    )
    trainer.add_callback(_make_callback(monitor, work_dir))
    _check_first_batch(trainer, data.rows, data.order)
    enable_labelled_loss(trainer, model, data.rows[data.order[0]], device, half)
    return _TrainingSetup(
        model=model,
        trainer=trainer,
        monitor=monitor,
        steps=steps,
        half=half,
        on_cpu=device.type == "cpu",
        parameters=count_parameters(model),
    )


def _steps_done(held: _TrainingSetup) -> int:
    """The optimiser steps that were made; TrainError where they are not those that were planned."""
    done = int(held.trainer.state.global_step)
    if done != held.steps.total and not held.monitor.stopped_early:
        raise TrainError(
            f"{done} optimiser steps were made, {held.steps.total} planned; the adapter was not kept. Start"
            " again in a new directory"
        )
    return done


def _last_loss(trainer: Any) -> float:
    losses = (float(entry["loss"]) for entry in reversed(trainer.state.log_history) if "loss" in entry)
    return next(losses, math.nan)


def _make_monitor(
    config: TrainConfig,
    model: Any,
    data: TrainSet,
    plan: MemoryPlan,
    steps: OptimiserSteps,
    half: str | None,
    work_dir: Path,
) -> Monitor:
    """What follows the run: it reads the held-out rows with the model and saves the best state of it."""
    pass_tokens = plan.micro_batch * plan.seq_length

    def held_out(step: int) -> HeldOutMeasurement:
        return measure_held_out(model, data.held_out, data.asked, data.letter_ids, step, half, pass_tokens)

    return Monitor(
        work_dir.parent / "train_log.jsonl",
        steps.total,
        steps.tokens,
        config.keep,
        config.measure_every or steps.default_interval,
        config.early_stopping,
        measure=held_out if data.held_out else None,
        save_best=lambda held: save_best(model, work_dir, held),
        scaled=half == "float16",
    )


def _make_trainer(config: TrainConfig, model: Any, tokenizer: Any, data: TrainSet, arguments: Any) -> Any:
    """TRL's trainer over the rows in their order, with the adapter in float32. TrainError where --report-to
    names a tracker that is not there.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    dataset = Dataset.from_dict(
        {"input_ids": [list(r.input_ids) for r in data.rows], "labels": [r.labels for r in data.rows]}
    ).select(data.order)
    try:
        trainer = make_labelled_trainer(SFTTrainer)(
            model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer
        )
    except (ImportError, RuntimeError) as error:
        if not config.report_to:
            raise
        raise TrainError(
            f"--report-to {','.join(config.report_to)}: {str(error).splitlines()[0]}; install the tracker, or"
            " leave it out"
        ) from error
    keep_adapter_in_float32(model)
    trainer.remove_callback(PrinterCallback)  # it prints every log to stdout
    return trainer


def _measure_loaded_bytes(on_cpu: bool) -> int:
    """What is held before the first step; on a card the peak is counted from here on."""
    if not on_cpu:
        import torch

        torch.cuda.reset_peak_memory_stats()
    release_freed_memory()
    return peak_bytes(on_cpu)


def _run_steps(trainer: Any, steps: OptimiserSteps, plan: MemoryPlan, checkpoint: Path | None) -> None:
    """The steps themselves, after those of the checkpoint. TrainError where memory runs out."""
    try:
        # measuring follows the last step
        with report_wait(
            "training", lambda: f"step {min(trainer.state.global_step + 1, steps.total)}/{steps.total}"
        ):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainError(
            f"out of memory after step {trainer.state.global_step} ({str(error).splitlines()[0][:120]});"
            f" {plan}: give a smaller --micro-batch, --gradient-checkpointing on or a shorter"
            " --max-seq-length, and --resume to go on after the last checkpoint"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """torch's OutOfMemoryError on a card; on a CPU its allocator raises a plain RuntimeError."""
    return isinstance(error, MemoryError) or any(
        mark in str(error).lower() for mark in ("out of memory", "can't allocate memory")
    )


def _make_callback(monitor: Monitor, work_dir: Path) -> Any:
    from transformers import TrainerCallback

    needed: list[int] = []  # the best step as of each checkpoint; the last two checkpoints are kept

    class Follow(TrainerCallback):  # type: ignore[misc]
        """Hands the loop's events to the monitor."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            monitor.start(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if monitor.finish_step(state.global_step):
                control.should_training_stop = True

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            monitor.record_step(state.global_step, logs or {})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            mark_complete(work_dir, state.global_step)
            needed.append(monitor.best.step if monitor.best else 0)
            if len(needed) > 1:
                drop_older_adapters(work_dir, min(needed[-2:]))

    return Follow()


def _check_first_batch(trainer: Any, rows: list[EncodedRow], order: list[int]) -> None:
    """The first batch as TRL and Unsloth really collate it must be the first rows of the order,
    token for token.
    """
    batch = next(iter(trainer.get_train_dataloader()))
    if "labels" not in batch:
        raise TrainError(
            "TRL's first batch has no labels: this version of TRL or Unsloth prepares rows otherwise; use the"
            " pinned versions"
        )
    for position, row in zip(range(len(batch["input_ids"])), (rows[i] for i in order), strict=False):
        size = len(row.input_ids)
        ids, labels = batch["input_ids"][position].tolist(), batch["labels"][position].tolist()
        if (
            tuple(ids[:size]) != row.input_ids
            or labels[:size] != row.labels
            or any(label != MASKED for label in labels[size:])
        ):
            raise TrainError(
                f"row {row.question_id}: TRL would train on other tokens than were encoded; use the pinned"
                " TRL and Unsloth"
            )


def quiet_libraries() -> None:
    """Progress bars off: what this program prints is its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()
