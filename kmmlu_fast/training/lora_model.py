"""The model to train: the base with a new LoRA, loaded by Unsloth.

In: a model directory or hub id, settings. Out: a PEFT model; its device, types and counts. Knows nothing of
rows, steps or files.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.core.errors import ModelError, TrainError
from kmmlu_fast.training import libraries
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.initial_adapter import load_initial_weights


def load_lora_model(
    config: TrainConfig, model_path: str, revision: str | None = None, checkpointing: bool = True
) -> Any:
    """The base with a new LoRA. ``checkpointing``: compute activations again in the backward pass."""
    FastLanguageModel = libraries.import_unsloth().FastLanguageModel  # noqa: N806 - a name of the library's
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
                f"{model_path} does not fit into memory while loading; free memory on the device or take a"
                " smaller model"
            ) from error
        raise ModelError(
            f"{model_path}: cannot be loaded for training ({str(error).splitlines()[0]})"
        ) from error
    dora = {"use_dora": True} if config.use_dora else {}
    adapted = FastLanguageModel.get_peft_model(
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
        **dora,
    )
    if config.init_adapter:
        load_initial_weights(adapted, config.init_adapter)
    return adapted


def find_compute_device(model: Any) -> Any:
    """The output layer's torch.device: the first parameters may be on the host (see ``measure``)."""
    return model.get_base_model().get_output_embeddings().weight.device


def half_precision_dtype(device: str, model: Any) -> str | None:
    """The 16-bit type of mixed precision: bfloat16 if the device has it, else float16 on a GPU, else None.

    None also for families that overflow in float16 (Gemma 3 on a T4): Unsloth trains them in float32, and
    float16 would make the held-out loss NaN.
    """
    if libraries.import_unsloth().is_bfloat16_supported():
        return "bfloat16"
    if is_forced_to_float32(model):
        return None
    return "float16" if device == "cuda" else None


def is_forced_to_float32(model: Any) -> bool:
    """Whether Unsloth trains the model in float32 because its family overflows in float16."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    marks = (getattr(owner, "_unsloth_forced_float32", None) for owner in (model, base))
    return next((bool(mark) for mark in marks if mark is not None), False)


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all). PEFT counts every 4-bit weight, though two of them share a byte."""
    trainable, total = model.get_nb_trainable_parameters()
    return int(trainable), int(total)


def keep_adapter_in_float32(model: Any) -> None:
    """TRL casts a 4-bit model's LoRA weights to bfloat16, which rounds small late steps away; Unsloth undoes
    that on a GPU only.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def is_four_bit(model: Any) -> bool:
    """Whether any layer is in 4 bit."""
    return any(type(module).__name__ == "Linear4bit" for module in model.modules())
