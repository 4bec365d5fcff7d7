"""The job of ``python -m kmmlu_fast.train``: rows, leakage check, memory plan, training, adapter directory.

In: a ``TrainConfig``. Out: the adapter directory and its card. Wires the wing together.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.machine.device_memory import available_memory, current_capability
from kmmlu_fast.machine.environment import library_versions
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.machine.host import best_cpu_dtype
from kmmlu_fast.machine.model_size import read_model_types
from kmmlu_fast.machine.trackers import require_trackers
from kmmlu_fast.models.adapters import ADAPTER_CARD, LOG, read_training_log
from kmmlu_fast.models.model import Model
from kmmlu_fast.training import libraries
from kmmlu_fast.training.card import build_card, write_adapter
from kmmlu_fast.training.chat_setup import ChatSetup, check_chat_flags, prepare_chat, save_chat_files
from kmmlu_fast.training.checkpoints import require_disk_room
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.encoded import count_trained_tokens
from kmmlu_fast.training.encoding import TrainSet, encode_training_set
from kmmlu_fast.training.initial_adapter import check_initial_adapter, take_initial_adapter
from kmmlu_fast.training.inputs import TrainingInputs, data_digest, read_training_inputs, source_digest
from kmmlu_fast.training.memory import MemoryPlan, plan_memory
from kmmlu_fast.training.memory_forecast import SMALL_PARAMETERS
from kmmlu_fast.training.model_shape import ModelShape, read_model_shape
from kmmlu_fast.training.result import PausedTraining
from kmmlu_fast.training.row_length import describe_too_long
from kmmlu_fast.training.state import (
    CHECKPOINTS,
    chosen_micro_batch,
    claimed_output_directory,
    is_training_finished,
    lock_output_directory,
    resumed_model_digest,
)
from kmmlu_fast.training.training_dtype import predict_training_dtype


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """A trained adapter directory and its card. Pass ``path`` to ``evaluate(adapter=...)``."""

    path: Path
    # kmmlu_fast.json: base model, data, hyperparameters, metrics, memory, warnings, versions
    card: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """Loss (nats per token), speed (tokens/s), and the held-out rows before and after."""
        return dict(self.card["metrics"])

    @property
    def warnings(self) -> list[str]:
        """Training's warnings, one sentence each."""
        return list(self.card["warnings"])


def load_adapter_card(folder: Path) -> TrainedAdapter:
    """The finished adapter in ``folder``; RunError if it has no card."""
    return TrainedAdapter(folder, read_json(folder / ADAPTER_CARD))


def run_training_job(config: TrainConfig) -> TrainedAdapter | PausedTraining:
    """Train, unless it is done already (--resume). TrainError, DataError, ModelError for user errors."""
    config = take_initial_adapter(config)
    if is_training_finished(config):
        _remove_checkpoints(config)
        return load_adapter_card(config.output_dir)
    with libraries.without_vllm():
        return _lock_and_train(config)


def _remove_checkpoints(config: TrainConfig) -> None:
    """Remove the checkpoints of a training that was killed just before it removed them."""
    work = config.output_dir / CHECKPOINTS
    if work.exists() and not config.keep_checkpoints:
        # A TrainError means that another process has the lock: it will remove them itself.
        with contextlib.suppress(TrainError), lock_output_directory(config):
            shutil.rmtree(work)


def _lock_and_train(config: TrainConfig) -> TrainedAdapter | PausedTraining:
    libraries.use_one_gpu()
    require_trackers(config.report_to)
    inputs = read_training_inputs(config)
    check_chat_flags(config, inputs.rows)
    require_modules("training", "unsloth", "trl", "peft", "bitsandbytes", "transformers", "safetensors")
    with lock_output_directory(config):
        # Check again: another process may have finished this training before it released the lock.
        if is_training_finished(config):
            return load_adapter_card(config.output_dir)
        return train_and_write_adapter(config, inputs)


def train_and_write_adapter(config: TrainConfig, inputs: TrainingInputs) -> TrainedAdapter | PausedTraining:
    """Train and write the adapter directory. The caller holds its lock."""
    log_note("loading Unsloth")
    with report_wait("loading Unsloth"):
        libraries.import_unsloth()
    from kmmlu_fast.models import model as models
    from kmmlu_fast.training import trainer

    trainer.quiet_libraries()
    model = models.resolve_model(config.model, config.revision, config.trust_remote_code)
    tokenizer = models.load_tokenizer(model)
    chat = prepare_chat(config, model, tokenizer, inputs.rows)
    identity = _training_identity(config, model, chat)
    with report_wait(f"encoding {len(inputs.rows) + len(inputs.held_out):,} rows"):
        data = encode_training_set(config, inputs.rows, inputs.held_out, chat.tokenizer, inputs.asked)
    shape, plan = _plan_on_device(config, model, data)
    log_note(str(plan))
    tokens = _report_tokens(data, plan.micro_batch)
    log_note(f"trainable: {shape.lora:,} of {shape.total:,} parameters ({shape.trainable_share:.2%})")
    warnings = [*precision_warnings(config, shape.total), *chat.warnings]
    log_as_warnings(warnings)
    if told := describe_too_long(data.too_long):  # logged when the rows were encoded
        warnings.append(told)
    work = config.output_dir / CHECKPOINTS
    if not config.resume:
        require_disk_room(config.output_dir, shape.lora, plan.parts_bytes["optimiser"])
    resolved = config.model_copy(update={"target_modules": list(shape.targets)})
    with claimed_output_directory(config, identity, plan.micro_batch):
        result = trainer.train_lora_adapter(resolved, model.path, model.revision, tokenizer, data, plan, work)
    if isinstance(result, PausedTraining):
        return result
    result = replace(result, warnings=[*warnings, *result.warnings])
    tokens |= chat.card_parts()
    card = build_card(config, model, inputs, data, identity, plan, result, tokens)
    save_chat_files(chat, model, config.output_dir)
    write_adapter(work / "adapter", config.output_dir, card, read_training_log(config.output_dir / LOG))
    if not config.keep_checkpoints:
        shutil.rmtree(work)
    return load_adapter_card(config.output_dir)


def _plan_on_device(config: TrainConfig, model: Model, data: TrainSet) -> tuple[ModelShape, MemoryPlan]:
    """The model's shape and the memory plan on this device; TrainError if nothing fits."""
    shape = read_model_shape(
        model.path,
        config.r,
        config.target_modules,
        model.revision,
        config.trust_remote_code,
        use_dora=config.use_dora,
    )
    available_bytes, device, cpu = available_memory(config.max_memory_gib)
    capability = None if cpu else current_capability()
    dtype = predict_training_dtype(capability, read_model_types(model.config()), best_cpu_dtype())
    if dtype == "float32":
        why = (
            "this CPU has no bfloat16 instructions (AVX512_BF16 or AMX) and would only emulate it"
            if cpu
            else f"this GPU has no bfloat16, and {model.name} overflows in float16"
        )
        log_note(f"note: training in float32: {why}")
    plan = plan_memory(
        shape,
        max(len(row.input_ids) for row in data.rows),
        config.effective_batch,
        available_bytes,
        micro_batch=chosen_micro_batch(config),
        four_bit=config.load_in_4bit,
        cpu=cpu,
        device=device,
        checkpointing=config.gradient_checkpointing,
        float32=dtype == "float32",
        labels=max(len(row.input_ids) - row.prompt_tokens for row in data.rows),
    )
    return shape, plan


def _training_identity(config: TrainConfig, model: Model, chat: ChatSetup) -> dict[str, Any]:
    """What decides the adapter: it must not change before ``--resume``."""
    from kmmlu_fast.prompting import prompts

    return {
        "settings": config.result_settings(),
        "init_adapter_digest": check_initial_adapter(config, model),
        "model_digest": resumed_model_digest(config, model),
        "data_digest": data_digest(config),
        "held_out_digest": source_digest(str(config.held_out_data)) if config.held_out_data else None,
        "template_digest": prompts.template_digest(config.prompt_style, chat.tokenizer),
        "versions": library_versions(),
        **chat.identity_parts(),
    }


def _report_tokens(data: TrainSet, micro_batch: int) -> dict[str, Any]:
    """Log and return the tokens of an epoch, the trained ones, and the share of padding in the batches."""
    lengths = [len(row.input_ids) for row in data.rows]
    padded = real = 0
    for start in range(0, len(data.order), micro_batch):
        batch = [lengths[i] for i in data.order[start : start + micro_batch]]
        padded += len(batch) * max(batch)
        real += sum(batch)
    counts = {
        "rows": len(lengths),
        "tokens": sum(lengths),
        "trained_tokens": sum(count_trained_tokens(row) for row in data.rows),
        "longest": max(lengths),
        "padding_share": round(1 - real / max(1, padded), 4),
    }
    log_note(
        f"{counts['rows']:,} rows, {counts['tokens']:,} tokens, {counts['trained_tokens']:,} of them trained"
        f" on; longest {counts['longest']}; padding {counts['padding_share']:.1%} (rows of similar length"
        " share a batch)"
    )
    return counts


def precision_warnings(config: TrainConfig, parameters: int) -> list[str]:
    """Evaluation uses 16-bit weights. nf4 shifts a small model's letters so far that what the adapter learns
    on it does not carry over.
    """
    if not config.load_in_4bit or parameters >= SMALL_PARAMETERS:
        return []
    return [
        f"the base has {parameters / 1e9:.2f} B parameters and is trained in 4 bit, but evaluated in 16 bit:"
        " at this size that can flip the predicted letters, and the held-out rows do not show it; give"
        " --no-load-in-4bit"
    ]
