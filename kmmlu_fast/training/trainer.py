"""QLoRA by Unsloth and TRL: one straight line, the same on a GPU and on a CPU.

In: a ``TrainSet`` of token ids, the model's path, settings, a memory plan. Out: the trained adapter in
``work_dir`` (PEFT's files) and a ``TrainResult`` with what was measured. Knows nothing of wording, leakage or
cards.

Unsloth is imported first and only here, in the training process: importing it patches transformers, TRL and
PEFT. Rows reach TRL as token ids with labels and the order is laid out beforehand
(``train_data.order_rows``), so that neither TRL nor Unsloth tokenises, shuffles or adds anything: what is
trained is what was encoded.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import note
from kmmlu_fast.core.errors import ModelError, TrainError
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.core.progress import waiting
from kmmlu_fast.training import libraries
from kmmlu_fast.training import memory as memory_plan
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.encoded import MASKED, Encoded
from kmmlu_fast.training.encoding import TrainSet
from kmmlu_fast.training.label_loss import attach, with_labelled_loss
from kmmlu_fast.training.measure import measure
from kmmlu_fast.training.memory import MemoryPlan
from kmmlu_fast.training.monitor import HeldOut, Monitor

COMPLETE = "complete.json"  # in a checkpoint: written last, so a checkpoint without it was cut by a kill


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training did. Seconds exclude loading; ``tokens`` are real ones, without padding."""

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
    loaded_bytes: int  # held before the first step
    trainable_parameters: int
    total_parameters: int
    four_bit: bool
    dtype: str
    device: str
    base: HeldOut | None
    kept: HeldOut | None
    kept_step: int
    stopped_early: bool
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def train(
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
    rows, order = data.rows, data.order
    start_sec = time.monotonic()
    with waiting("loading the model"):
        model = load_model(config, model_path, revision, plan.checkpointing)
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    total_steps = math.ceil(len(order) / config.effective_batch)
    tokens_by_step = [
        sum(len(rows[i].input_ids) for i in order[at : at + config.effective_batch])
        for at in range(0, len(order), config.effective_batch)
    ]
    every_tenth = max(round(total_steps / 10), 1)
    checkpoint = last_checkpoint(work_dir) if config.resume else None
    device = (
        model.get_base_model().get_output_embeddings().weight.device
    )  # the first parameters may be on the host: see measure
    half = _half_type(device.type)
    dataset = Dataset.from_dict(
        {"input_ids": [list(r.input_ids) for r in rows], "labels": [r.labels for r in rows]}
    ).select(order)
    arguments = SFTConfig(
        output_dir=str(work_dir),
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        num_train_epochs=1,  # ``order`` holds all epochs
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=round(total_steps * config.warmup_ratio),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,  # Unsloth replaces 8-bit AdamW by torch's where there is no GPU
        neftune_noise_alpha=config.neftune_noise_alpha,
        bf16=half == "bfloat16",
        fp16=half == "float16",
        seed=config.seed,
        data_seed=config.seed,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,  # rows were fitted, and counted, before
        packing=False,
        padding_free=False,
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a NaN must be seen, not averaged away
        disable_tqdm=True,
        report_to=config.report_to or "none",
        save_strategy="steps",
        save_steps=config.save_every or every_tenth,
        save_total_limit=2,
        eval_strategy="no",
        gradient_checkpointing=plan.checkpointing,  # TRL switches it on by itself
        loss_type="nll",  # TRL's chunked loss would take 256 positions where a row has two labels
    )

    def held_out(step: int) -> HeldOut:
        return measure(
            model,
            data.held_out,
            data.asked,
            data.letter_ids,
            step,
            half,
            pass_tokens=plan.micro_batch * plan.seq_length,
        )

    monitor = Monitor(
        work_dir.parent / "train_log.jsonl",
        total_steps,
        tokens_by_step,
        config.keep,
        config.measure_every or every_tenth,
        config.early_stopping,
        measure=held_out if data.held_out else None,
        save_best=lambda held: _save_best(model, work_dir, held),
        scaled=half == "float16",
    )
    try:
        trainer = with_labelled_loss(SFTTrainer)(
            model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer
        )
    except (ImportError, RuntimeError) as error:
        if not config.report_to:
            raise
        raise TrainError(
            f"--report-to {','.join(config.report_to)}: {str(error).splitlines()[0]}; install the tracker, or"
            " leave it out"
        ) from error
    _keep_adapter_in_float32(model)
    trainer.remove_callback(PrinterCallback)  # it prints every log to stdout
    trainer.add_callback(_callback(monitor, work_dir))
    _same_bytes(trainer, rows, order)
    take_labelled_loss(trainer, model, rows[order[0]], device, half)
    trainable, total = _parameters(model)
    note(
        f"training {trainable:,} of {total:,} parameters ({trainable / total:.2%}), {len(order)} rows in"
        f" {total_steps} steps" + (f", continued after {checkpoint.name}" if checkpoint else "")
    )
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    memory_plan.give_back()
    loaded_bytes = memory_plan.peak_bytes(device.type == "cpu")
    train_start_sec = time.monotonic()
    try:
        with waiting("training", lambda: f"step {trainer.state.global_step + 1}/{total_steps}"):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainError(
            f"out of memory after step {trainer.state.global_step} ({str(error).splitlines()[0][:120]});"
            f" {plan}: give a smaller --micro-batch, --gradient-checkpointing on or a shorter"
            " --max-seq-length, and --resume to go on after the last checkpoint"
        ) from error
    train_sec = time.monotonic() - train_start_sec
    steps, first = trainer.state.global_step, int(checkpoint.name.rsplit("-", 1)[-1]) if checkpoint else 0
    if steps != total_steps and not monitor.stopped_early:
        raise TrainError(
            f"{steps} optimiser steps were made, {total_steps} planned; the adapter was not kept. Start again"
            " in a new directory"
        )
    kept = _keep_adapter(model, work_dir, monitor, config.keep)
    tokens = sum(tokens_by_step[:steps])
    return TrainResult(
        steps=steps,
        planned_steps=total_steps,
        resumed_from=first,
        rows_seen=min(steps * config.effective_batch, len(order)),
        tokens=tokens,
        final_loss=next(
            (float(e["loss"]) for e in reversed(trainer.state.log_history) if "loss" in e), math.nan
        ),
        train_sec=train_sec,
        load_sec=train_start_sec - start_sec,
        tokens_per_sec=sum(tokens_by_step[first:steps]) / max(train_sec, 1e-9),
        peak_bytes=memory_plan.peak_bytes(device.type == "cpu"),
        loaded_bytes=loaded_bytes,
        trainable_parameters=trainable,
        total_parameters=total,
        four_bit=_is_four_bit(model),
        dtype=half or "float32",
        device=plan.device,
        base=monitor.base,
        kept=kept,
        kept_step=kept.step if kept else steps,
        stopped_early=monitor.stopped_early,
        warnings=monitor.warnings(),
    )


def load_model(
    config: TrainConfig, model_path: str, revision: str | None = None, checkpointing: bool = True
) -> Any:
    """The base in 4 bit with a fresh LoRA, by Unsloth. ``checkpointing``: compute a layer's
    activations again in its backward pass.
    """
    FastLanguageModel = libraries.import_unsloth().FastLanguageModel
    try:
        model, _ = FastLanguageModel.from_pretrained(
            model_name=model_path,
            revision=revision,
            max_seq_length=config.max_seq_length,
            load_in_4bit=config.load_in_4bit,
            load_in_16bit=not config.load_in_4bit,
            dtype=None,
            trust_remote_code=config.trust_remote_code,
        )
    except (OSError, ValueError, RuntimeError) as error:
        if "out of memory" in str(error).lower():
            raise TrainError(
                f"{model_path} does not fit into memory while loading; free the device or take a smaller"
                " model"
            ) from error
        raise ModelError(
            f"{model_path}: cannot be loaded for training ({str(error).splitlines()[0]})"
        ) from error
    return FastLanguageModel.get_peft_model(
        model,
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
        bias="none",
        use_gradient_checkpointing="unsloth" if checkpointing else False,
        random_state=config.seed,
        use_rslora=config.use_rslora,
        init_lora_weights=True if config.init_lora_weights == "default" else config.init_lora_weights,
        **({"use_dora": True} if config.use_dora else {}),
    )


def take_labelled_loss(trainer: Any, model: Any, row: Encoded, device: Any, half: str | None) -> None:
    """Compute logits only where there are labels, if that gives the model's own loss on a row;
    else say so and leave the loss alone.
    """
    import torch

    ids = torch.tensor([row.input_ids], device=device)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([row.labels], device=device),
    }
    with torch.autocast(device.type, dtype=getattr(torch, half or "bfloat16"), enabled=half is not None):
        agrees = attach(model, batch)
    if agrees:
        trainer.use_labelled_loss()
    else:
        note(
            "the model's loss is not that of its labelled positions alone: it computes its own, which takes"
            " longer"
        )


def _is_out_of_memory(error: Exception) -> bool:
    """torch's OutOfMemoryError on a card; on a CPU its allocator raises a plain RuntimeError."""
    return isinstance(error, MemoryError) or any(
        mark in str(error).lower() for mark in ("out of memory", "can't allocate memory")
    )


def last_checkpoint(work_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None if there is none."""
    complete = [path for path in work_dir.glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[-1]), default=None)


def _callback(monitor: Monitor, work_dir: Path) -> Any:
    from transformers import TrainerCallback

    needed: list[int] = []  # the best step as of each checkpoint; the last two checkpoints are kept

    class Follow(TrainerCallback):  # type: ignore[misc]
        """Hands the loop's events to the monitor."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            monitor.start(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if monitor.step_done(state.global_step):
                control.should_training_stop = True

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            monitor.logged(state.global_step, logs or {})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            write_json_atomically(
                work_dir / f"checkpoint-{state.global_step}" / COMPLETE, {"step": state.global_step}
            )
            needed.append(monitor.best.step if monitor.best else 0)
            if len(needed) > 1:
                _drop_older(work_dir, min(needed[-2:]))

    return Follow()


def _save_best(model: Any, work_dir: Path, held: HeldOut) -> None:
    """The adapter as it is now, as the best; it appears when it is whole, and earlier ones stay
    until no checkpoint needs them.
    """
    place = best_folder(work_dir, held.step)
    fresh = place.with_name(f"{place.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(str(fresh))
    write_json_atomically(fresh / COMPLETE, asdict(held))
    shutil.rmtree(
        place, ignore_errors=True
    )  # of a pass that was killed before its next checkpoint, and is done again
    fresh.rename(place)


def best_folder(work_dir: Path, step: int) -> Path:
    """Where the adapter of the measurement at ``step`` is: one folder a step, so that a resumed training,
    whose log goes back to its checkpoint, finds the adapter that was the best *then*.
    """
    return work_dir / f"best-{step}"


def _drop_older(work_dir: Path, step: int) -> None:
    for folder in work_dir.glob("best-*"):
        if folder.name.removeprefix("best-").isdigit() and int(folder.name.removeprefix("best-")) < step:
            shutil.rmtree(folder, ignore_errors=True)


def _keep_adapter(model: Any, work_dir: Path, monitor: Monitor, keep: str) -> HeldOut | None:
    """Put the adapter that is kept into ``work_dir/adapter``: the best by the held-out rows, or the last."""
    adapter = work_dir / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    if keep != "last" and monitor.best is not None:
        best = best_folder(work_dir, monitor.best.step)
        if not (best / COMPLETE).exists():
            raise TrainError(
                f"{best}: the best adapter is not there any more, though the log names it; train into a new"
                " directory"
            )
        shutil.copytree(best, adapter)
        (adapter / COMPLETE).unlink()
        return monitor.best
    model.save_pretrained(str(adapter))
    return monitor.last


def _same_bytes(trainer: Any, rows: list[Encoded], order: list[int]) -> None:
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


def _parameters(model: Any) -> tuple[int, int]:
    """(trainable, all): 4-bit weights are stored two to a byte, PEFT counts them as what they stand for."""
    trainable, total = model.get_nb_trainable_parameters()
    return int(trainable), int(total)


def _keep_adapter_in_float32(model: Any) -> None:
    """TRL turns a 4-bit model's LoRA weights into bfloat16, where late small steps round away;
    Unsloth undoes that on GPU only.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _is_four_bit(model: Any) -> bool:
    return any(type(module).__name__ == "Linear4bit" for module in model.modules())


def _half_type(device: str) -> str | None:
    """The 16-bit type of mixed precision: bfloat16 where the device has it, else float16 on
    GPU, else none.
    """
    if libraries.import_unsloth().is_bfloat16_supported():
        return "bfloat16"
    return "float16" if device == "cuda" else None


def quiet_libraries() -> None:
    """Progress bars off: what this program prints is its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()
