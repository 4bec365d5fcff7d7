"""Finds LoRA adapters, checks them against their base before an engine starts, and merges them if that is
faster than serving.

In: ``--adapter`` arguments and a ``Model``. Out: ``Adapter`` records, or AdapterError that names the file; a
merged copy of the model in the cache. Knows PEFT's files and the card that ``train`` writes beside them, but
no engines or questions.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.core.files import cache_root, remove_tree, sync_folder
from kmmlu_fast.core.locks import acquire_lock
from kmmlu_fast.core.reading import expand_path, parse_json, read_bytes, read_json
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line
from kmmlu_fast.models.model import Model, load_tokenizer

PLOT = "loss.svg"
LOG = "train_log.jsonl"
ADAPTER_CARD = "kmmlu_fast.json"  # train writes it beside the weights
STATE = "training.json"  # train writes it before the first step; without a card, training is unfinished
_MAX_RANK = 8192
_MERGE_WAIT_SEC = 3600.0
_WEIGHTS = "adapter_model.safetensors"


def load_adapters(specs: list[str], model: Model, mode: str) -> list[Adapter]:
    """Adapters for ``[NAME=]PATH`` specs, checked against the base model, with distinct names and ids.
    AdapterError says what is wrong.

    ``mode``, how they will be applied: "serve" (by vLLM), "merge", "auto" (either), or "peft" (unmerged, by
    the transformers engine).
    """
    adapters: list[Adapter] = []
    for number, spec in enumerate(specs, start=1):
        name, _, path = spec.rpartition("=")
        folder = expand_path(path, "--adapter")
        taken = {adapter.name for adapter in adapters}
        if not name:  # vLLM distinguishes adapters by name only, so "a/lora" and "b/lora" need two names
            name = next(candidate for candidate in _candidate_names(folder) if candidate not in taken)
        if name in taken or name == "base":
            raise AdapterError(f"--adapter {spec}: the name {name!r} is taken; give another as NAME={path}")
        adapters.append(_load_adapter(folder, name, number, model, mode))
    return adapters


def _candidate_names(folder: Path) -> list[str]:
    resolved = folder.resolve()
    numbered = [f"{resolved.name}-{number}" for number in range(2, 1000)]
    return [resolved.name, f"{resolved.parent.name}-{resolved.name}", *numbered]


def _load_adapter(folder: Path, name: str, adapter_id: int, model: Model, mode: str) -> Adapter:
    where = f"--adapter {folder}"
    if not folder.is_dir():
        raise AdapterError(f"{where}: no such directory; give the directory that holds adapter_config.json")
    config_file = folder / "adapter_config.json"
    is_finished = (folder / ADAPTER_CARD).exists() and config_file.exists()
    if (folder / STATE).exists() and not is_finished:
        raise AdapterError(
            f"{where}: its training is not finished; continue it with python -m kmmlu_fast.train --resume"
        )
    if not config_file.is_file():
        raise AdapterError(f"{where}: has no readable adapter_config.json, so it is not a PEFT adapter")
    config = read_json(config_file, AdapterError)
    _check_config(where, config, mode)
    weights = folder / _WEIGHTS
    if not weights.exists():
        raise AdapterError(
            f"{where}: has no {_WEIGHTS}; only safetensors are loaded (pickled .bin files can run code): save"
            " the adapter again with PEFT"
        )
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    _check_weights(where, weights, rank, model)
    card = read_adapter_card_file(folder)
    return Adapter(
        name=name,
        path=folder.resolve(),
        adapter_id=adapter_id,
        rank=rank,
        digest=hashlib.sha256(weights.read_bytes() + config_file.read_bytes()).hexdigest()[:16],
        base_model=_text_or_none(config.get("base_model_name_or_path")),
        prompt_style=_text_or_none(card.get("prompt_style")),
        template_digest=_text_or_none(card.get("template_digest")),
    )


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _check_config(where: str, config: dict[str, Any], mode: str) -> None:
    kind, bias = config.get("peft_type"), config.get("bias", "none")
    if kind != "LORA":
        raise AdapterError(f"{where}: peft_type is {bounded_repr(kind)}; only LORA adapters can be evaluated")
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        pattern = {"rank_pattern": pattern}
    for name, rank in [("rank r", config.get("r")), *pattern.items()]:
        if type(rank) is not int or not 1 <= rank <= _MAX_RANK:
            raise AdapterError(
                f"{where}: {one_line(name, 100)} is {bounded_repr(rank)}; it must be a whole number from 1 to"
                f" {_MAX_RANK}"
            )
    if not config.get("target_modules"):
        raise AdapterError(f"{where}: target_modules is empty, so the adapter changes nothing")
    if config.get("modules_to_save") and mode != "peft":
        raise AdapterError(
            f"{where}: has modules_to_save {bounded_repr(config['modules_to_save'])}, which vLLM refuses; use"
            " --engine transformers, or merge it into the base model yourself (PEFT merge_and_unload) and"
            " give the result with --model"
        )
    if mode == "serve" and config.get("use_dora"):
        raise AdapterError(f"{where}: is a DoRA adapter, which vLLM cannot serve; use --adapter-mode merge")
    if mode == "serve" and bias != "none":
        raise AdapterError(
            f"{where}: has bias {bounded_repr(bias)}, which vLLM cannot serve; use --adapter-mode merge"
        )
    if mode == "peft" and bias != "none":
        raise AdapterError(
            f"{where}: has bias {bounded_repr(bias)}, which PEFT does not remove for the base's answers; use"
            " --adapter-mode merge"
        )


def _check_weights(where: str, weights: Path, rank: int, model: Model) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise AdapterError(
            f"{where}: {_WEIGHTS} is not a safetensors file ({one_line(str(error), 200)})"
        ) from error
    factors = {key: shape for key, shape in shapes.items() if "lora_A" in key}
    if not factors:
        raise AdapterError(f"{where}: {_WEIGHTS} holds no lora_A matrices")
    base = model.config()
    hidden, layers = base.get("hidden_size"), base.get("num_hidden_layers")
    for key, shape in factors.items():
        if len(shape) != 2:
            raise AdapterError(
                f"{where}: {bounded_repr(key)} has {len(shape)} dimensions; a LoRA matrix has 2"
            )
        if shape[0] > rank:
            raise AdapterError(f"{where}: {key} has rank {shape[0]}, adapter_config.json says {rank}")
        reads_hidden = re.search(r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.", key)
        if reads_hidden and hidden and shape[1] != hidden:
            raise AdapterError(
                f"{where}: was made for a base of hidden size {shape[1]}, {model.name} has {hidden}; give its"
                " base with --model"
            )
        layer = re.search(r"layers\.(\d+)\.", key)
        if layer and isinstance(layers, int) and int(layer[1][:9]) >= layers:
            raise AdapterError(
                f"{where}: has weights for layer {layer[1]}, {model.name} has {layers} layers; give its base"
                " with --model"
            )


def read_adapter_card_file(folder: Path) -> dict[str, Any]:
    """The card that ``train`` wrote, {} if there is none. AdapterError if it is unreadable."""
    path = folder / ADAPTER_CARD
    if not path.exists():
        return {}
    try:
        return read_json(path, AdapterError)
    except AdapterError as error:
        raise AdapterError(f"{error}; delete it or train again") from error


def base_model_warning(adapter: Adapter, model: Model) -> str | None:
    """A warning if the adapter's recorded base has another name than the model, else None. Only the last part
    of a path counts: paths differ between machines."""
    if not adapter.base_model or adapter.base_model == model.name:
        return None
    if Path(adapter.base_model).name.lower() == Path(model.path).name.lower():
        return None
    return (
        f"adapter {adapter.name} was made for base model {adapter.base_model!r}, but is evaluated on"
        f" {model.name!r}; sizes agree"
    )


def merge_adapter(model: Model, adapter: Adapter, dtype: str) -> Path:
    """A cached copy of the base with the adapter merged by PEFT: as fast as the base, also where LoRA kernels
    are slow (CPU)."""
    target = cache_root() / "merged" / f"{model.digest}-{adapter.digest}-{dtype}"
    if (target / "config.json").exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        late = AdapterError(
            f"{target}: another process has been merging this adapter for an hour; wait for it, or end it"
        )
        with acquire_lock(target.parent / f".{target.name}.lock", late, wait_sec=_MERGE_WAIT_SEC):
            if (target / "config.json").exists():
                return target
            return write_merged_model(model, adapter, dtype, target)
    except OSError as error:
        raise AdapterError(
            f"--adapter {adapter.path}: no merged copy in {target} ({error}); free disk space or set"
            " KMMLU_FAST_CACHE"
        ) from error


def write_merged_model(model: Model, adapter: Adapter, dtype: str, target: Path) -> Path:
    """Needs ``target``'s lock. Removes what a killed process left; ``target`` appears only when complete."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    partial = target.with_name(target.name + ".partial")
    remove_tree(partial)
    remove_tree(target)  # without config.json it is incomplete
    try:
        kind = "auto" if dtype == "auto" else getattr(torch, dtype)
        base = AutoModelForCausalLM.from_pretrained(
            model.path, revision=model.revision, dtype=kind, trust_remote_code=model.trust_remote_code
        )
        merged = PeftModel.from_pretrained(base, str(adapter.path)).merge_and_unload(safe_merge=True)
        partial.mkdir(parents=True)
        merged.save_pretrained(partial)
        load_tokenizer(model).save_pretrained(partial)
        partial.rename(target)
        sync_folder(target.parent)
    # From safe_merge for NaN, from PEFT for target modules that the base does not have.
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise AdapterError(
            f"--adapter {adapter.path}: cannot be merged into {model.name} ({one_line(str(error), 200)})"
        ) from error
    return target


def read_training_log(path: Path) -> list[dict[str, Any]]:
    """The log's records up to the first line that is not one (such as a last line cut off by a kill)."""
    records: list[dict[str, Any]] = []
    if not path.exists():
        return records
    for line in read_bytes(path, AdapterError).decode("utf-8", "replace").split("\n"):
        try:
            record = parse_json(line, str(path), AdapterError)
        except AdapterError:
            break
        if not isinstance(record, dict):
            break
        if not isinstance(record.get("kind"), str) or type(record.get("step")) is not int:
            break
        records.append(record)
    return records
