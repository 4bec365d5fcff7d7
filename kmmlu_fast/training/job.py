"""The work of ``python -m kmmlu_fast.train``: rows, leakage check, memory plan, training, adapter directory.

In: a ``TrainConfig``. Out: the adapter directory and its card. Wires the wing together.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import file_digest
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.machine.device_memory import available_memory
from kmmlu_fast.machine.environment import library_versions
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.machine.host import best_cpu_dtype
from kmmlu_fast.models.adapters import ADAPTER_CARD, LOG, read_training_log
from kmmlu_fast.models.model import Model
from kmmlu_fast.training import libraries
from kmmlu_fast.training.card import build_card, write_adapter
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.conversations import choose_chat_template, decode_trained_runs
from kmmlu_fast.training.encoded import MASKED
from kmmlu_fast.training.encoding import TrainSet, encode_training_set
from kmmlu_fast.training.inputs import TrainingInputs, data_digest, read_training_inputs
from kmmlu_fast.training.memory import MemoryPlan, plan_memory
from kmmlu_fast.training.model_shape import ModelShape, read_model_shape
from kmmlu_fast.training.state import (
    CHECKPOINTS,
    claim_output_directory,
    is_training_finished,
    lock_output_directory,
    resumed_micro_batch,
)

_SMALL_PARAMETERS = (
    2_000_000_000  # 270 M was seen to suffer, 7 B is what QLoRA was made for; the line between is a guess
)


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """An adapter directory that ``train`` wrote, and what its card says. ``path`` is what
    ``evaluate(adapter=...)`` takes.
    """

    path: Path
    card: dict[
        str, Any
    ]  # kmmlu_fast.json: base model, data, hyperparameters, metrics, memory, warnings, versions

    @property
    def metrics(self) -> dict[str, Any]:
        """Loss (nats a token), speed (tokens/s), and the held-out rows before and after."""
        return dict(self.card["metrics"])

    @property
    def warnings(self) -> list[str]:
        """What training found worth a warning, one sentence each."""
        return list(self.card["warnings"])


def load_adapter_card(folder: Path) -> TrainedAdapter:
    """What a finished training left in ``folder``; RunError where there is no card."""
    return TrainedAdapter(folder, read_json(folder / ADAPTER_CARD))


def run_training_job(config: TrainConfig) -> TrainedAdapter:
    """Train, or find the work done (--resume). TrainError, DataError, ModelError for what a user can mend."""
    if is_training_finished(config):
        _remove_checkpoints(config)
        return load_adapter_card(config.output_dir)
    with libraries.without_vllm():
        return _lock_and_train(config)


def _remove_checkpoints(config: TrainConfig) -> None:
    """Remove the checkpoints that a kill after the last file left."""
    work = config.output_dir / CHECKPOINTS
    if work.exists() and not config.keep_checkpoints:
        with (
            contextlib.suppress(TrainError),
            lock_output_directory(config),
        ):  # held: whoever trained it is about to
            shutil.rmtree(work)


def _lock_and_train(config: TrainConfig) -> TrainedAdapter:
    material = read_training_inputs(config)
    require_modules("training", "unsloth", "trl", "peft", "bitsandbytes", "transformers", "safetensors")
    with lock_output_directory(config):
        # Once more: the process that held the lock may just have finished.
        return (
            load_adapter_card(config.output_dir)
            if is_training_finished(config)
            else train_and_write_adapter(config, material)
        )


def train_and_write_adapter(config: TrainConfig, material: TrainingInputs) -> TrainedAdapter:
    """Train, alone in the directory, up to the card, which is written last."""
    log_note("loading Unsloth")
    with report_wait("loading Unsloth"):
        libraries.import_unsloth()
    from kmmlu_fast.models import model as models
    from kmmlu_fast.training import trainer

    trainer.quiet_libraries()
    model = models.resolve_model(config.model, config.revision, config.trust_remote_code)
    tokenizer = models.load_tokenizer(model)
    data = encode_training_set(config, material.rows, material.held_out, tokenizer, material.asked)
    _show_rows(config, data, tokenizer)
    shape, plan = _plan_on_device(config, model, data)
    log_note(str(plan))
    tokens = _report_tokens(config, data, plan.micro_batch)
    log_note(f"trainable: {shape.lora:,} of {shape.total:,} parameters ({shape.trainable_share:.2%})")
    mismatch = precision_warnings(config, shape.total)
    log_as_warnings(mismatch)
    identity = _training_identity(config, model, tokenizer)
    claim_output_directory(config, identity, plan.micro_batch)
    work = config.output_dir / CHECKPOINTS
    result = trainer.train_lora_adapter(config, model.path, model.revision, tokenizer, data, plan, work)
    result = replace(result, warnings=[*mismatch, *result.warnings])
    tokens["chat_template"] = choose_chat_template(tokenizer)[0]
    card = build_card(config, model, material, data, identity, plan, result, tokens)
    write_adapter(work / "adapter", config.output_dir, card, read_training_log(config.output_dir / LOG))
    if not config.keep_checkpoints:
        shutil.rmtree(work)
    return load_adapter_card(config.output_dir)


def _plan_on_device(config: TrainConfig, model: Model, data: TrainSet) -> tuple[ModelShape, MemoryPlan]:
    """What the model is made of, and the memory plan on this device; TrainError where nothing fits."""
    shape = read_model_shape(
        model.path, config.r, config.target_modules, model.revision, config.trust_remote_code
    )
    available_bytes, device, cpu = available_memory(config.max_memory_gib)
    float32 = cpu and best_cpu_dtype() == "float32"
    if float32:
        log_note(
            "note: training in float32: this CPU has no bfloat16 instructions (AVX512_BF16 or AMX), where"
            " bfloat16 is only emulated"
        )
    return shape, plan_memory(
        shape,
        max(len(row.input_ids) for row in data.rows),
        config.effective_batch,
        available_bytes,
        micro_batch=resumed_micro_batch(config) or config.micro_batch,
        four_bit=config.load_in_4bit,
        cpu=cpu,
        device=device,
        checkpointing=config.gradient_checkpointing,
        float32=float32,
        labels=max(len(row.input_ids) - row.prompt_tokens for row in data.rows),
    )


def _training_identity(config: TrainConfig, model: Model, tokenizer: Any) -> dict[str, Any]:
    """What decides the adapter: ``--resume`` must find it the same."""
    from kmmlu_fast.prompting import prompts

    return {
        "settings": config.result_settings(),
        "model_digest": model.digest,
        "data_digest": data_digest(config),
        "held_out_digest": file_digest(config.held_out_data) if config.held_out_data else None,
        "template_digest": prompts.template_digest(config.prompt_style, tokenizer),
        "versions": library_versions(),
    }


def _show_rows(config: TrainConfig, data: TrainSet, tokenizer: Any) -> None:
    """The first rows as they are trained: what is trained on in colour, or in brackets where
    there is none.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for row in data.rows[: config.show_rows]:
        labels = row.labels
        trained = sum(label != MASKED for label in labels)
        console.print(Text(f"{row.question_id}: {len(labels)} tokens, {trained} trained", style="bold"))
        line = Text()
        for text, is_trained in decode_trained_runs(row, tokenizer):
            line.append(f"⟦{text}⟧" if is_trained else text, style="green" if is_trained else "dim")
        console.print(line)


def _report_tokens(config: TrainConfig, data: TrainSet, micro_batch: int) -> dict[str, Any]:
    """Tokens of an epoch, how many are trained on, and the share of padding in the batches as
    they are laid out.
    """
    lengths = [len(row.input_ids) for row in data.rows]
    trained = sum(label != MASKED for row in data.rows for label in row.labels)
    padded = real = 0
    for start in range(0, len(data.order), micro_batch):
        some = [lengths[i] for i in data.order[start : start + micro_batch]]
        padded += len(some) * max(some)
        real += sum(some)
    found = {
        "rows": len(lengths),
        "tokens": sum(lengths),
        "trained_tokens": trained,
        "longest": max(lengths),
        "padding_share": round(1 - real / max(1, padded), 4),
    }
    log_note(
        f"{found['rows']:,} rows, {found['tokens']:,} tokens, {trained:,} of them trained on; longest"
        f" {found['longest']}; padding {found['padding_share']:.1%} (rows of like length share a batch)"
    )
    return found


def precision_warnings(config: TrainConfig, parameters: int) -> list[str]:
    """Evaluation runs on 16-bit weights; nf4 moves a small model's letters so far that what is
    learnt on it does not carry over.
    """
    if not config.load_in_4bit or parameters >= _SMALL_PARAMETERS:
        return []
    return [
        f"the base has {parameters / 1e9:.2f} B parameters and is trained in 4 bit, but evaluated in 16 bit:"
        " at this size that can turn the predicted letters around, and the held-out rows do not show it;"
        " give --no-load-in-4bit"
    ]
