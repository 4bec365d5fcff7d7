"""Whether every matrix of an adapter has its place in the base, before an engine starts.

In: an adapter's settings and tensor shapes, a ``Model``. Out: nothing, or AdapterError that counts what has
no place. The headers of the base's weight files tell it for most adapters, without torch. If they do not
(fused or renamed modules, experts, embeddings, a base that is not downloaded yet), PEFT is asked, on a
model without weights (torch's meta device). Knows nothing of engines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError, ModelError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.machine.extras import silence_bitsandbytes
from kmmlu_fast.machine.model_size import read_safetensors_header
from kmmlu_fast.models.adapter_features import FACTOR_KEY
from kmmlu_fast.models.adapter_files import AdapterFiles, Shapes
from kmmlu_fast.models.model import Model

_PREFIX = "base_model.model."
_IN_TRAINING_ONLY = ".lora_monteclora_sampler."  # MonteCLoRA applies the plain factors afterwards
_TABLES = ("embed_tokens.", "lm_head.", "wte.", "embed_in.", "embed_out.")


def check_adapter_fit(files: AdapterFiles, model: Model, where: str) -> str | None:
    """AdapterError unless all tensors have a place in the base, and all places that the settings name have
    theirs. Returns a layer for which the adapter has a bias, but the base none to add it to."""
    if _fits_headers(files, read_base_shapes(model)):
        return None
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "peft")):
        return None  # a client of a server; whoever applies the adapter checks it
    try:
        base = build_empty_model(model)
    except ModelError:
        return None  # whoever loads the base says why it cannot be loaded
    places = find_places(base, files.config, files.shapes, model.name, where)
    refuse_misfits(places, model.name, where)
    return _layer_without_bias(places)


def read_base_shapes(model: Model) -> Shapes:
    """The tensors in the base's weight files, by name; {} if they are not all on this computer."""
    folder = Path(model.path) if Path(model.path).is_dir() else None
    if folder is None:
        with contextlib.suppress(ModelError):
            folder = model.folder()
    if folder is None:
        return {}
    headers = (read_safetensors_header(path) for path in sorted(folder.glob("*.safetensors")))
    return {name: shape for header in headers for name, _, shape in header}


def _fits_headers(files: AdapterFiles, base: Shapes) -> bool:
    """Whether the headers alone show that the adapter fits; False also means that they cannot tell."""
    factors: dict[str, set[str]] = {}
    for key, shape in files.shapes.items():
        match = FACTOR_KEY.fullmatch(key)
        weight = base.get(f"{match[1]}.weight") if match else None
        if match is None or weight is None or len(weight) != 2 or len(shape) != 2:
            return False
        if shape[1 if match[2] == "A" else 0] != weight[1 if match[2] == "A" else 0]:
            return False
        factors.setdefault(match[1], set()).add(match[2])
    targets = files.config.get("target_modules")
    others = ("exclude_modules", "layers_to_transform", "layers_pattern", "target_parameters")
    if not isinstance(targets, list) or any(files.config.get(name) for name in others):
        return False
    modules = {name.removesuffix(".weight") for name, shape in base.items() if len(shape) == 2}
    wanted = {module for module in modules if _is_target(module, targets)}
    return set(factors) == wanted and all(len(pair) == 2 for pair in factors.values())


def _is_target(module: str, targets: Iterable[Any]) -> bool:
    """PEFT's rule for a list of names."""
    return any(module == target or module.endswith(f".{target}") for target in targets)


@dataclass(frozen=True, slots=True)
class Places:
    """Where an adapter's tensors go, by names as PEFT saves them."""

    shapes: Shapes  # of every tensor of the base and of the adapter that the settings describe
    own: frozenset[str]  # the adapter's, which must all be filled; the others are the base's own
    given: Shapes  # the file's tensors, by the names to which PEFT converts them when it loads them


def build_empty_model(model: Model) -> Any:
    """The base without weights, on torch's meta device. ModelError if transformers cannot build it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    arguments = {"trust_remote_code": model.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(model.path, revision=model.revision, **arguments)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, **arguments)
    except Exception as error:  # transformers raises errors of any kind for odd settings
        raise ModelError(
            f"{model.name}: its config.json cannot be read ({one_line(str(error), 200)})"
        ) from error


def find_places(base: Any, config: Mapping[str, Any], shapes: Shapes, name: str, where: str) -> Places:
    """PEFT's own places for an adapter with these settings in ``base``, a model on the meta device, which is
    changed. AdapterError if PEFT finds none."""
    silence_bitsandbytes()
    import torch
    from peft import LoraConfig, PeftModel
    from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers

    known = {field.name for field in dataclasses.fields(LoraConfig)} - {"runtime_config"}
    settings = {key: value for key, value in config.items() if key in known}
    # How training started decides values, not places; some ways compute on the base's weights.
    settings |= {"init_lora_weights": True, "inference_mode": True}
    given = {key: shape for key, shape in shapes.items() if _IN_TRAINING_ONLY not in key}
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            adapted = PeftModel(base, LoraConfig(**settings), autocast_adapter_dtype=False)
            tensors = {key: torch.empty(shape) for key, shape in given.items()}
            tensors = convert_peft_adapter_state_dict_for_transformers(
                adapted, adapted.peft_config["default"], tensors
            )
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise AdapterError(
            f"{where}: PEFT finds no place for it in {name} ({one_line(str(error), 300)}); give its base with"
            " --model"
        ) from error
    inside = {
        _saved_name(key): tuple(tensor.shape)
        for key, tensor in adapted.state_dict().items()
        if ".original_module." not in key
    }
    # Each parameter once: of two names for the same one, PEFT saves the first.
    own = {_saved_name(key) for key, _ in adapted.named_parameters() if ".default" in key}
    converted = {_saved_name(key): tuple(tensor.shape) for key, tensor in tensors.items()}
    return Places(inside, frozenset(own), converted)


def _saved_name(key: str) -> str:
    """A tensor's name in an adapter file, by its name in PEFT's model."""
    name = key.replace(".modules_to_save.default", "").replace(".default", "")
    return name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def refuse_misfits(places: Places, name: str, where: str) -> None:
    """AdapterError if a tensor has no place in the base ``name``, or a place no tensor."""
    given, inside = places.given, places.shapes
    for key, shape in given.items():
        if key in inside and key not in places.own and shape != inside[key]:
            raise AdapterError(_other_vocabulary(key, shape, inside[key], name, where))
    astray = [key for key, shape in given.items() if inside.get(key) != shape]
    if astray:
        example, difference = astray[0], ""
        if example in inside:
            difference = f" ({_by(given[example])}, where the base has {_by(inside[example])})"
        raise AdapterError(
            f"{where}: {len(astray)} of {len(given)} matrices have no place in {name}, such as"
            f" {one_line(example, 120)}{difference}; give its base with --model"
        )
    missing = sorted(places.own - set(given))
    if missing:
        raise AdapterError(
            f"{where}: {len(missing)} of the {len(places.own)} matrices that adapter_config.json describes"
            f" are not in the file, such as {one_line(missing[0], 120)}; copy or save the adapter again"
        )


def _other_vocabulary(
    key: str, shape: tuple[int, ...], base_shape: tuple[int, ...], name: str, where: str
) -> str:
    module = one_line(key.removeprefix(_PREFIX), 120)
    if any(table in f"{module}." for table in _TABLES) and len(shape) == 2 == len(base_shape):
        return (
            f"{where}: holds the whole {module} for {shape[0]} tokens, {name} has {base_shape[0]}: tokens"
            f" were added before training; resize the base's vocabulary"
            f" (resize_token_embeddings({shape[0]})), merge there with PEFT (merge_and_unload), save that and"
            " give it with --model"
        )
    return (
        f"{where}: holds the whole {module} as {_by(shape)}, {name} has {_by(base_shape)}; give its base"
        " with --model"
    )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _layer_without_bias(places: Places) -> str | None:
    for key in places.given:
        match = re.fullmatch(r"(base_model\.model\..+)\.lora_B\.bias", key)
        if match and f"{match[1]}.base_layer.bias" not in places.shapes:
            return one_line(match[1].removeprefix(_PREFIX), 120)
    return None
