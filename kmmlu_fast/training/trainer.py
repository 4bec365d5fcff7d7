"""QLoRA with Unsloth and TRL: one straight line, the same on a GPU and on a CPU.

In: a ``TrainSet`` of token ids, the model's path, settings, a memory plan. Out: the trained adapter in
``work_dir`` (PEFT's files) and a ``TrainResult``. Knows nothing of wording, leakage or cards.

Rows reach TRL as token ids with labels, in the order of ``order.order_rows``, so that neither TRL nor Unsloth
tokenises, shuffles or adds anything: the encoded tokens are what is trained.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.command.exit_codes import find_full_disk_path
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import KmmluError, TrainError
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.untrusted_text import one_line
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
from kmmlu_fast.training.held_out import CHANGE_FIELDS, HeldOutMeasurement
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
from kmmlu_fast.training.result import PausedTraining, TrainResult


def train_lora_adapter(
    config: TrainConfig,
    model_path: str,
    revision: str | None,
    tokenizer: Any,
    data: TrainSet,
    plan: MemoryPlan,
    work_dir: Path,
) -> TrainResult | PausedTraining:
    """Train, measure, keep the best. The adapter is written to ``work_dir/adapter``, the log to
    ``train_log.jsonl`` beside ``work_dir``. With ``--stop-after`` there is a checkpoint instead.
    """
    start_sec = time.monotonic()
    checkpoint = last_checkpoint(work_dir) if config.resume else None
    steps = plan_optimiser_steps(data, config.effective_batch)
    pause = steps.pause_step(config.stop_after)
    if pause is not None and checkpoint is not None and checkpoint_step(checkpoint) >= pause:
        return PausedTraining(checkpoint_step(checkpoint), steps.total, checkpoint)
    setup = _set_up_training(config, model_path, revision, tokenizer, data, plan, work_dir)
    trainer, monitor, (trainable, total) = setup.trainer, setup.monitor, setup.parameters
    resumed = f", continued after {checkpoint.name}" if checkpoint else ""
    log_note(
        f"training {trainable:,} of {total:,} parameters ({trainable / total:.2%}), {len(data.order)} rows in"
        f" {steps.total} steps{resumed}"
    )
    loaded_bytes = _measure_loaded_bytes(setup.on_cpu)
    train_start_sec = time.monotonic()
    _run_steps(trainer, steps, plan, checkpoint, monitor, work_dir.parent)
    train_sec = time.monotonic() - train_start_sec
    if pause is not None and trainer.state.global_step == pause < steps.total:
        return PausedTraining(pause, steps.total, work_dir / f"checkpoint-{pause}")
    done = _steps_done(setup)
    first = checkpoint_step(checkpoint) if checkpoint else 0
    kept = keep_adapter(setup.model, work_dir, monitor, config.keep)
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
        peak_bytes=peak_bytes(setup.on_cpu),
        loaded_bytes=loaded_bytes,
        trainable_parameters=trainable,
        total_parameters=total,
        four_bit=is_four_bit(setup.model),
        dtype=setup.half or "float32",
        device=plan.device,
        base=monitor.base,
        kept=kept,
        kept_step=kept.step if kept else done,
        stopped_early=monitor.stopped_early,
        warnings=monitor.warnings(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TrainingSetup:
    """A training that is ready for its first step."""

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
    """Load the model, set up TRL's trainer over the rows, and check that it trains on their tokens."""
    with report_wait("loading the model"):
        model = load_lora_model(config, model_path, revision, plan.checkpointing)
    steps, device = plan_optimiser_steps(data, config.effective_batch), find_compute_device(model)
    half = half_precision_dtype(device.type, model)
    arguments = sft_arguments(config, plan, steps, half, work_dir)
    trainer = _make_trainer(config, model, tokenizer, data, arguments)
    monitor = _make_monitor(config, model, trainer, data, plan, steps, half, work_dir)
    trainer.add_callback(_make_callback(monitor, work_dir, steps.pause_step(config.stop_after)))
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


def _steps_done(setup: _TrainingSetup) -> int:
    """The number of optimiser steps made; TrainError if it is not the planned number."""
    done = int(setup.trainer.state.global_step)
    if done != setup.steps.total and not setup.monitor.stopped_early:
        raise TrainError(
            f"{done} optimiser steps were made, {setup.steps.total} planned; the adapter was not kept. Start"
            " again in a new directory"
        )
    return done


def _last_loss(trainer: Any) -> float:
    losses = (float(entry["loss"]) for entry in reversed(trainer.state.log_history) if "loss" in entry)
    return next(losses, math.nan)


def _make_monitor(
    config: TrainConfig,
    model: Any,
    trainer: Any,
    data: TrainSet,
    plan: MemoryPlan,
    steps: OptimiserSteps,
    half: str | None,
    work_dir: Path,
) -> Monitor:
    """The monitor, which measures the model on the held-out rows, saves its best state and tells trackers."""
    pass_tokens = plan.micro_batch * plan.seq_length

    def measure(step: int) -> HeldOutMeasurement:
        return measure_held_out(model, data.held_out, data.asked, data.letter_ids, step, half, pass_tokens)

    return Monitor(
        work_dir.parent / "train_log.jsonl",
        total_steps=steps.total,
        tokens_by_step=steps.tokens,
        keep=config.keep,
        measure_every=config.measure_every or steps.default_interval,
        early_stopping=config.early_stopping,
        measure=measure if data.held_out else None,
        save_best=lambda measurement: save_best(model, work_dir, measurement),
        publish=lambda measurement: publish_measurement(trainer, measurement),
        scaled=half == "float16",
        stop_when=config.stop_when,
    )


def publish_measurement(trainer: Any, measurement: HeldOutMeasurement) -> None:
    """Log the held-out numbers to the trackers of --report-to, under ``eval``, as they call it."""
    logs = {
        "eval_loss": measurement.loss,
        "eval_accuracy": measurement.accuracy,
        "eval_balanced_accuracy": measurement.balanced_accuracy,
    }
    for name in (*CHANGE_FIELDS, "letter_mass"):
        value = getattr(measurement, name)
        if value is not None:
            logs[f"eval_{name}"] = value
    # Not trainer.log: TRL adds its running means of the training to whatever is logged.
    is_step_logged = trainer.control.should_log  # on_log clears it, and the step's own log is still to come
    trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, logs)
    trainer.control.should_log = is_step_logged


def _make_trainer(config: TrainConfig, model: Any, tokenizer: Any, data: TrainSet, arguments: Any) -> Any:
    """TRL's trainer over the rows in their order, with the adapter in float32. TrainError if a tracker of
    --report-to is not installed.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    input_ids = [list(row.input_ids) for row in data.rows]
    columns = {"input_ids": input_ids, "labels": [row.labels for row in data.rows]}
    dataset = Dataset.from_dict(columns).select(data.order)
    LabelledTrainer = make_labelled_trainer(SFTTrainer)  # noqa: N806 - a name of the library's
    try:
        trainer = LabelledTrainer(
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
    """Memory in use before the first step; on a GPU the peak is counted from here on."""
    if not on_cpu:
        import torch

        torch.cuda.reset_peak_memory_stats()
    release_freed_memory()
    return peak_bytes(on_cpu)


def _run_steps(
    trainer: Any,
    steps: OptimiserSteps,
    plan: MemoryPlan,
    checkpoint: Path | None,
    monitor: Monitor,
    output_dir: Path,
) -> None:
    """Make the steps after the checkpoint's. TrainError if it cannot be read, or if memory or the disk runs
    out.
    """

    def progress() -> str:
        step = trainer.state.global_step + 1  # one too many while measuring after the last step
        return f"step {min(step, steps.total)}/{steps.total}"

    try:
        with report_wait("training", progress):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Exception as error:
        if _is_out_of_memory(error):
            raise TrainError(
                f"out of memory after step {trainer.state.global_step} ({str(error).splitlines()[0][:120]});"
                f" {plan}: continue after the last checkpoint with --resume and a smaller --micro-batch or"
                " --gradient-checkpointing on, or train with a shorter --max-seq-length in a new directory"
            ) from error
        if find_full_disk_path(error) is not None:
            raise TrainError(
                f"--output-dir {output_dir}: its disk is full after step {trainer.state.global_step}; free"
                " space there and continue with --resume, or train into a directory on another disk"
            ) from error
        if checkpoint is None or monitor.begun or isinstance(error, KmmluError):
            raise
        raise TrainError(
            f"--resume: {checkpoint}: cannot be continued from ({one_line(str(error), 200)}); it is damaged,"
            " or was written by other versions: remove it to continue after the one before it, or train into"
            " a new directory"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """torch raises OutOfMemoryError on a GPU, a plain RuntimeError on a CPU."""
    text = str(error).lower()
    known = "out of memory" in text or "can't allocate memory" in text
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and known)


def _make_callback(monitor: Monitor, work_dir: Path, pause: int | None) -> Any:
    from transformers import TrainerCallback

    needed: list[int] = []  # the best step as of each checkpoint; the last two checkpoints are kept

    class Follow(TrainerCallback):  # type: ignore[misc]
        """Hands the loop's events to the monitor."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            monitor.start(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if monitor.finish_step(state.global_step):
                control.should_training_stop = True
            if state.global_step == pause:
                control.should_save = control.should_training_stop = True

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
    """TrainError if TRL's and Unsloth's first batch is not the first rows of the order, token for token."""
    batch = next(iter(trainer.get_train_dataloader()))
    if "labels" not in batch:
        raise TrainError(
            "TRL's first batch has no labels: this version of TRL or Unsloth prepares rows differently; use"
            " the pinned versions"
        )
    for i, ids, labels in zip(order, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=False):
        row, size = rows[i], len(rows[i].input_ids)
        padded_labels = row.labels + [MASKED] * (len(labels) - size)
        if tuple(ids[:size]) != row.input_ids or labels != padded_labels:
            raise TrainError(
                f"row {row.question_id}: TRL would not train on the encoded tokens; use the pinned TRL and"
                " Unsloth"
            )


def quiet_libraries() -> None:
    """Turn transformers' progress bars off: this program prints its own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
