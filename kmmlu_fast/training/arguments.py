"""TRL's settings, and the optimiser steps that an order of rows makes.

In: a ``TrainConfig``, a memory plan, rows in their order. Out: ``OptimiserSteps`` and an ``SFTConfig`` with
which TRL neither tokenises nor shuffles. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.encoding import TrainSet
from kmmlu_fast.training.memory import MemoryPlan

DECAY_SHARE = 0.2  # of the steps, at the end of the "warmup_stable_decay" schedule


@dataclass(frozen=True, slots=True)
class OptimiserSteps:
    """The optimiser steps of all epochs."""

    tokens: list[int]  # per step, without padding

    @property
    def total(self) -> int:
        return len(self.tokens)

    @property
    def default_interval(self) -> int:
        """Default steps between measurements, and between checkpoints: a tenth of all, at least one."""
        return max(round(self.total / 10), 1)

    def pause_step(self, share: float | None) -> int | None:
        """The step after which ``share`` of all steps are made, at least one; None: no pause."""
        return None if share is None else min(max(round(self.total * share), 1), self.total)


def plan_optimiser_steps(data: TrainSet, effective_batch: int) -> OptimiserSteps:
    """The steps of the order; the last one may have fewer rows."""
    lengths = [len(data.rows[i].input_ids) for i in data.order]
    starts = range(0, len(lengths), effective_batch)
    return OptimiserSteps([sum(lengths[start : start + effective_batch]) for start in starts])


def scheduler_options(name: str, total_steps: int) -> dict[str, Any]:
    """What a schedule needs besides its name: for "warmup_stable_decay", the length of the decay."""
    if name != "warmup_stable_decay":
        return {}
    return {"num_decay_steps": max(round(total_steps * DECAY_SHARE), 1)}


def sft_arguments(
    config: TrainConfig, plan: MemoryPlan, steps: OptimiserSteps, half: str | None, folder: Path
) -> Any:
    """TRL's ``SFTConfig``. ``half``: the 16-bit type of mixed precision; None: no mixed precision."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        num_train_epochs=1,  # the order holds all epochs
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        lr_scheduler_kwargs=scheduler_options(config.lr_scheduler_type, steps.total),
        warmup_steps=round(steps.total * config.warmup_ratio),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,  # without a GPU, Unsloth replaces 8-bit AdamW by torch's
        neftune_noise_alpha=config.neftune_noise_alpha,
        bf16=half == "bfloat16",
        fp16=half == "float16",
        seed=config.seed,
        data_seed=config.seed,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,  # the rows are already within the limit
        packing=False,
        padding_free=False,
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a NaN must show, not be averaged away
        disable_tqdm=True,
        report_to=config.report_to or "none",
        save_strategy="steps",
        save_steps=config.save_every or steps.default_interval,
        save_total_limit=2,
        eval_strategy="no",
        gradient_checkpointing=plan.checkpointing,  # TRL's default is on
        loss_type="nll",  # TRL's chunked loss would compute 256 positions for a row's two labels
    )
