"""What a LoRA adapter adds to its base's weights: W + s·B·A, with the numbers that PEFT's merge gives, bit
for bit.

In: an adapter directory as PEFT writes it. Out: for each changed module its two factors and scale, and the
sum for a weight; or why the adapter is more than such a sum. Source: PEFT 0.21 ``LoraLayer.update_layer``,
``Linear.get_delta_weight`` and ``Linear.merge``. Knows nothing of engines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.core.reading import read_json

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
# Projections of dense decoders: a checkpoint has each of them as one matrix. Experts, embeddings and heads go
# through PEFT's own merge.
_PLAIN = frozenset(
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"]
)
# Settings of PEFT's LoraConfig that make it more than W + s·B·A, or another W.
_MORE = (
    *(
        "use_dora",
        "use_qalora",
        "lora_bias",
        "layer_replication",
        "target_parameters",
        "trainable_token_indices",
    ),
    *("fan_in_fan_out", "alora_invocation_tokens", "modules_to_save", "arrow_config", "megatron_config"),
)
_OTHER_BASE = (
    "pissa",
    "olora",
    "corda",
    "loftq",
    "lora_ga",
)  # initialisations that change the base's weights


Scratch = dict[tuple[tuple[int, int], Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """One module's factors: ``down`` is lora_A (rank, inputs), ``up`` lora_B (outputs, rank)."""

    down: Any
    up: Any
    scale: float

    def add_to_weight(self, weight: Any, dtype: Any, scratch: Scratch | None = None) -> Any:
        """The weight in ``dtype`` with the product added, as ``merge`` does it: product in float32, rounded,
        then summed.

        ``scratch`` is kept between calls: new memory for every product takes three times as long as the
        products do.
        """
        import torch

        shape, room = (self.up.shape[0], self.down.shape[1]), {} if scratch is None else scratch
        if (shape, dtype) not in room:
            room[shape, dtype] = (torch.empty(shape), torch.empty(shape, dtype=dtype))
        product, rounded = room[shape, dtype]
        torch.matmul(self.up.float(), self.down.float(), out=product)
        if self.scale != 1.0:
            product.mul_(self.scale)
        return weight.to(dtype) + rounded.copy_(product)


def unsupported_adapter_reason(folder: Path) -> str | None:
    """Why the adapter cannot be added to its base's weights module by module; None where it
    can. AdapterError if a file is unreadable.
    """
    config = _read_adapter_config(folder)
    if found := [name for name in _MORE if config.get(name)]:
        return f"{', '.join(found)} in adapter_config.json"
    if config.get("bias", "none") != "none":
        return f"bias {config['bias']!r} in adapter_config.json"
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_OTHER_BASE):
        return f"init_lora_weights {start!r}: it was trained beside other weights than the base's"
    for key in _tensor_names(folder):
        found_key = _KEY.fullmatch(key)
        if found_key is None:
            return f"{key} is no lora_A or lora_B of a linear layer"
        module = found_key[1]
        if module.rpartition(".")[2] not in _PLAIN or ".experts." in module:
            return f"it changes {module}"
    return None


def read_lora_deltas(folder: Path) -> dict[str, LoraDelta]:
    """Every changed module by its name in the model, such as
    ``model.layers.0.self_attn.q_proj``. AdapterError if the file is torn.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _read_adapter_config(folder)
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"--adapter {folder}: adapter_model.safetensors cannot be read ({error})"
        ) from error
    factors: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if found := _KEY.fullmatch(key):
            factors.setdefault(found[1], {})[found[2]] = tensor
    torn = [module for module, pair in factors.items() if len(pair) != 2]
    if torn or not factors:
        raise AdapterError(
            f"--adapter {folder}: {torn[0] if torn else 'no module'} has both lora_A and lora_B"
        )
    return {
        module: LoraDelta(pair["A"], pair["B"], lora_scale(config, module))
        for module, pair in factors.items()
    }


def lora_scale(config: Mapping[str, Any], module: str) -> float:
    """alpha / rank (/ root of the rank with ``use_rslora``), by the module's own patterns where
    there are some.
    """
    rank = float(_match_pattern(config.get("rank_pattern") or {}, module, config["r"]))
    alpha = float(_match_pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _match_pattern(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """The first pattern that matches the end of the module's name, as PEFT's ``get_pattern_key`` finds it."""
    return next(
        (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), otherwise
    )


def changed_weights(
    weights: Iterable[tuple[str, Any]], touched: set[str], changes: Mapping[str, LoraDelta], dtype: Any
) -> Iterator[tuple[str, Any]]:
    """The checkpoint's tensors of the ``touched`` modules, with the changes added. AdapterError
    if a change found no weight.
    """
    left, scratch = set(changes), Scratch()
    for name, tensor in weights:
        module, _, kind = name.rpartition(".")
        if module not in touched:
            continue
        if kind == "weight" and module in changes:
            left.discard(module)
            yield name, changes[module].add_to_weight(tensor, dtype, scratch)
        else:
            yield name, tensor
    if left:
        raise AdapterError(
            f"the model's files have no weight of {sorted(left)[0]}, which the adapter changes; use"
            " --adapter-mode merge"
        )


def expand_packed_modules(modules: Iterable[str], packed: Mapping[str, list[str]]) -> set[str]:
    """The modules and those that an engine keeps in one matrix with them (q, k, v; gate, up):
    one cannot be written without the others.
    """
    found = set(modules)
    for module in list(found):
        parent, _, leaf = module.rpartition(".")
        for parts in packed.values():
            if leaf in parts:
                found |= {f"{parent}.{part}" for part in parts}
    return found


def _read_adapter_config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "adapter_config.json", AdapterError)


def _tensor_names(folder: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "adapter_model.safetensors", framework="numpy") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"--adapter {folder}: adapter_model.safetensors cannot be read ({error})"
        ) from error
