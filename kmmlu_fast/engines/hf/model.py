"""Loads a transformers model for the engine: its device, its type, 4 bit if requested, its adapters.

In: settings. Out: the model, and a switch between the adapters and the base. A model that cannot be served is
refused in one line that names what can. Knows nothing of requests.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import AdapterError, EngineError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.machine.extras import silence_bitsandbytes
from kmmlu_fast.machine.host import best_cpu_dtype
from kmmlu_fast.machine.model_size import repository_quantization

# Modules that QLoRA does not quantise: the output layer, routers of mixtures of experts, non-text encoders.
_NOT_QUANTISED = ["lm_head", "router", "mlp.gate", "block_sparse_moe.gate", "moe.gate", "mamba"]
_NOT_QUANTISED += ["vision_tower", "visual", "audio_tower", "multi_modal_projector", "mm_projector", "merger"]
_PROBE_TOKENS = 16
_SAME_LOGITS = 1e-3  # of their spread; a layer that does nothing leaves them equal but for the order of sums
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """All settings of the engine. ``None`` = chosen by device and memory."""

    model: str
    revision: str | None = None
    tokenizer: str | None = None
    dtype: str = "auto"
    quantization: str | None = None  # "nf4", or None: as stored in the repository
    letter_precision: str = "auto"  # float32: the output layer computes in float32 when scoring
    max_model_len: int = 4096
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    seed: int = 42
    trust_remote_code: bool = False
    adapters: tuple[Adapter, ...] = ()


def load_transformers_model(settings: TransformersSettings, device: str) -> tuple[Any, str]:
    """The base model in evaluation mode on ``device`` ("cpu", "cuda:0"), and its compute type. EngineError if
    it cannot be loaded.

    nf4 is QLoRA's: 4-bit NormalFloat with quantised scales, computed in ``dtype`` (Dettmers et al. 2023), as
    with Unsloth's ``load_in_4bit``: a 16-bit repository becomes the base that the adapter was trained on.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    silence_bitsandbytes()
    where = f"model {settings.model}"
    try:
        config = AutoConfig.from_pretrained(
            settings.model, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise EngineError(f"{where}: its config cannot be loaded ({_error_line(error)})") from error
    stored_as = repository_quantization(config.to_dict())
    if stored_as not in (None, "bitsandbytes"):
        raise EngineError(
            f"{where} is quantised as {stored_as}, which vLLM serves: leave --engine transformers out (it"
            " takes 16-bit, 32-bit and bitsandbytes repositories)"
        )
    dtype = compute_dtype(settings.dtype, str(config.dtype or "float32").removeprefix("torch."), device)
    arguments: dict[str, Any] = {
        "device_map": {"": device},
        "dtype": dtype,
        "trust_remote_code": settings.trust_remote_code,
    }
    if settings.quantization and stored_as is None:
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=_NOT_QUANTISED,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(settings.model, revision=settings.revision, **arguments)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise EngineError(
                f"{where} does not fit into the memory of {device}: use --quantization nf4 or a smaller model"
            ) from error
        raise EngineError(f"{where}: transformers cannot load it ({_error_line(error)})") from error
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes' packed CPU kernel rounds scales and inputs to bfloat16; training does not.
            module.support_avx512bf16_for_cpu = False
    return model.eval(), dtype


def compute_dtype(wanted: str, saved: str, device: str) -> str:
    """``wanted``, or for ``auto`` the repository's 16-bit type (bfloat16 for a float32 repository); where
    bfloat16 is only emulated, float32 on a CPU and float16 on a GPU.
    """
    if wanted != "auto":
        return wanted
    if device == "cpu":
        native = best_cpu_dtype() == "bfloat16"
    else:
        import torch

        native = torch.cuda.get_device_capability(device) >= (8, 0)
    if not native:
        return "float32" if device == "cpu" else "float16"
    return saved if saved in ("bfloat16", "float16") else "bfloat16"


class AdapterSwitch:
    """The adapters of a model, loaded by PEFT beside its weights: one of them is applied, or none."""

    def __init__(self, model: Any, adapters: Sequence[Adapter], device: str, dtype: str) -> None:
        """Load all adapters. AdapterError if any weight of one does not fit the model."""
        self._names = {adapter.digest: f"adapter_{index}" for index, adapter in enumerate(adapters)}
        self._peft: Any = None
        self._active: str | None = None
        base = _probe_logits(model, device) if adapters else None
        for adapter in adapters:
            loaded = self._load_peft_adapter(model, adapter, device, dtype)
            loaded.eval()
            loaded.base_model.disable_adapter_layers()
            _check_base_unchanged(base, _probe_logits(model, device), adapter)

    def _load_peft_adapter(self, model: Any, adapter: Adapter, device: str, dtype: str) -> Any:
        import torch
        from peft import PeftConfig, PeftModel

        name, where, path = self._names[adapter.digest], f"--adapter {adapter.path}", str(adapter.path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about missing keys, which are checked below
                if self._peft is None:
                    config = PeftConfig.from_pretrained(path)
                    config.inference_mode = True
                    self._peft = PeftModel(model, config, adapter_name=name, autocast_adapter_dtype=False)
                loaded = self._peft.load_adapter(
                    path, adapter_name=name, autocast_adapter_dtype=False, torch_device=device
                )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise AdapterError(f"{where}: PEFT cannot load it on this base ({_error_line(error)})") from error
        for problem, keys in (
            ("weights that the base does not take", loaded.unexpected_keys),
            ("weights missing", loaded.missing_keys),
        ):
            if keys:
                raise AdapterError(
                    f"{where}: does not fit its base or its adapter_config.json: {len(keys)} {problem}, such"
                    f" as {keys[0]}; give its base with --model"
                )
        for key, weight in self._peft.named_parameters():
            if f".{name}." in f"{key}." and weight.is_floating_point():
                # as in vLLM and mixed-precision training
                weight.data = weight.data.to(getattr(torch, dtype))
        return self._peft

    def activate(self, adapter: Adapter | None) -> None:
        """Apply ``adapter`` from now on; None = the base alone."""
        wanted = adapter.digest if adapter else None
        if wanted == self._active:
            return
        if wanted is None:
            self._peft.base_model.disable_adapter_layers()
        elif wanted in self._names:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(self._names[wanted])
        else:
            raise EngineError(
                f"adapter {adapter.name if adapter else None} was not loaded when the engine was opened"
            )
        self._active = wanted

    def close(self) -> None:
        self._peft = None


def _probe_logits(model: Any, device: str) -> Any:
    """Logits of a few tokens: the same numbers as long as no weight that answers was changed."""
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(_PROBE_TOKENS, device=device)[None]).logits.float()


def _check_base_unchanged(before: Any, after: Any, adapter: Adapter) -> None:
    """AdapterError if loading the adapter changed the base's own answers: as PiSSA does, or whole weights in
    the adapter's file."""
    difference = float((after - before).abs().max())
    if difference <= _SAME_LOGITS * float(before.std()):  # False for NaN
        return
    raise AdapterError(
        f"--adapter {adapter.path}: PEFT changes the base's own weights when it loads it (the base's logits"
        f" move by {difference:.3g}), so the base could not be answered beside it; use --adapter-mode merge"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the host."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(mark.lower() in text for mark in _OUT_OF_MEMORY)


def _error_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
