"""``train --init-adapter``: continues from an adapter that exists, in place of a new one.

In: a ``TrainConfig``. Out: the config with the adapter's own rank, alpha, modules and base; later its
weights in the model to train. TrainError for an adapter that training cannot continue, before anything is
loaded. Knows nothing of rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import AdapterError, TrainError
from kmmlu_fast.models.adapter_features import FACTOR_KEY, way_problem
from kmmlu_fast.models.adapter_files import (
    WEIGHTS,
    AdapterFiles,
    find_adapter_folder,
    read_adapter_files,
    read_base_reference,
)
from kmmlu_fast.models.adapter_fit import check_adapter_fit
from kmmlu_fast.models.model import Model
from kmmlu_fast.training.config import TrainConfig

# Settings that give an adapter other shapes in some layers than in others.
_BY_LAYER = ("rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules")


def read_initial_adapter(name: str) -> AdapterFiles:
    """The adapter's files. AdapterError if there is none."""
    folder, _ = find_adapter_folder(name)
    return read_adapter_files(folder, f"--init-adapter {name}")


def take_initial_adapter(config: TrainConfig) -> TrainConfig:
    """The config with the settings of ``--init-adapter`` and, without ``--model``, its base."""
    if config.init_adapter is None:
        return config
    where = f"--init-adapter {config.init_adapter}"
    files = read_initial_adapter(config.init_adapter)
    _refuse_what_training_lacks(files, where)
    leaves = {_leaf(key) for key in files.shapes} - {""}
    settings = {
        "r": files.config["r"],
        "lora_alpha": files.config.get("lora_alpha", 8),
        "target_modules": [*_in_order(leaves, config.target_modules)],
        "use_rslora": bool(files.config.get("use_rslora")),
        "use_dora": bool(files.config.get("use_dora")),
    }
    for name, value in settings.items():
        given = getattr(config, name)
        same = sorted(given) == sorted(value) if name == "target_modules" else given == value
        if name in config.model_fields_set and not same:
            shown = ",".join(value) if name == "target_modules" else value
            raise TrainError(
                f"{where}: was trained with {name} {shown}, not {given}; leave --{name.replace('_', '-')}"
                " out, or give the adapter's own"
            )
    base, revision = read_base_reference(files.folder, where)
    if "model" not in config.model_fields_set and base:
        log_note(f"base model: {base}, which {where} was made for (--model was not given)")
        settings |= {"model": base, "revision": config.revision or revision}
    return config.model_copy(update=settings)


def _leaf(key: str) -> str:
    match = FACTOR_KEY.fullmatch(key)
    return match[1].rpartition(".")[2] if match else ""


def _in_order(names: set[str], order: list[str]) -> list[str]:
    return [*(name for name in order if name in names), *sorted(names - set(order))]


def _refuse_what_training_lacks(files: AdapterFiles, where: str) -> None:
    if files.config.get("peft_type") != "LORA" or type(files.config.get("r")) is not int:
        raise TrainError(f"{where}: is not a LoRA adapter of PEFT; only these can be continued")
    plain = {**files.config, "use_dora": False}
    keys = [key for key in files.shapes if not key.endswith(".lora_magnitude_vector")]
    problem = way_problem(plain, keys, "serve")
    by_layer = [name for name in _BY_LAYER if files.config.get(name)]
    if not problem and by_layer:
        problem = f"it has {', '.join(by_layer)} in adapter_config.json"
    if problem:
        raise TrainError(
            f"{where}: {problem}, which training here cannot continue; merge it into its base and train a new"
            " adapter on that"
        )


def check_initial_adapter(config: TrainConfig, model: Model) -> str | None:
    """The digest of ``--init-adapter``, None without one. AdapterError if it was made for another base."""
    if config.init_adapter is None:
        return None
    files = read_initial_adapter(config.init_adapter)
    check_adapter_fit(files, model, f"--init-adapter {config.init_adapter}")
    return files.digest


def load_initial_weights(model: Any, name: str) -> None:
    """Write the adapter's weights into the new LoRA of ``model``. AdapterError unless they fill all of it."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    files = read_initial_adapter(name)
    result = set_peft_model_state_dict(model, load_file(Path(files.folder) / WEIGHTS))
    astray = list(result.unexpected_keys)
    astray += [key for key in result.missing_keys if ".lora_" in key]
    if astray:
        raise AdapterError(
            f"--init-adapter {name}: {len(astray)} matrices do not fit the new adapter, such as {astray[0]};"
            " give its base with --model"
        )
    log_note(f"continuing from {name} ({files.digest})")
