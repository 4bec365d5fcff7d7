"""Settings as TRL takes them, and the optimiser steps that an order of rows makes.

In: a ``TrainConfig``, a memory plan, rows in their order. Out: an ``SFTConfig`` that leaves TRL nothing to
tokenise, shuffle or pad by its own lights; ``OptimiserSteps``. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.encoding import TrainSet
from kmmlu_fast.training.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class OptimiserSteps:
    """Optimiser steps, all epochs on end."""

    tokens: list[int]  # real tokens of each, without padding

    @property
    def total(self) -> int:
        return len(self.tokens)

    @property
    def default_interval(self) -> int:
        """A tenth of them, at least one: how often is measured and saved where nobody says."""
        return max(round(self.total / 10), 1)


def plan_optimiser_steps(data: TrainSet, effective_batch: int) -> OptimiserSteps:
    """The steps that the order makes; the last one may have fewer rows."""
    starts = range(0, len(data.order), effective_batch)
    batches = (data.order[at : at + effective_batch] for at in starts)
    return OptimiserSteps([sum(len(data.rows[i].input_ids) for i in batch) for batch in batches])


def sft_arguments(
    config: TrainConfig, plan: MemoryPlan, steps: OptimiserSteps, half: str | None, folder: Path
) -> Any:
    """TRL's ``SFTConfig``. ``half``: the 16-bit type of mixed precision, None for none."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        num_train_epochs=1,  # the order holds all epochs
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=round(steps.total * config.warmup_ratio),
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
        save_steps=config.save_every or steps.default_interval,
        save_total_limit=2,
        eval_strategy="no",
        gradient_checkpointing=plan.checkpointing,  # TRL switches it on by itself
        loss_type="nll",  # TRL's chunked loss would take 256 positions where a row has two labels
    )
