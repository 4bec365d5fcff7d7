"""What a LoRA adapter adds to its base's weights: W + s·B·A, bit for bit as PEFT's merge computes it.

In: an adapter directory as PEFT writes it, of a kind that is such a sum (``adapter_features``). Out: each
changed module's two factors and scale, and the changed weights. Source: PEFT 0.21 ``LoraLayer.update_layer``,
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
from kmmlu_fast.models.adapter_features import FACTOR_KEY

Scratch = dict[tuple[tuple[int, int], Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """One module's factors: ``down`` is lora_A (rank, inputs), ``up`` lora_B (outputs, rank)."""

    down: Any
    up: Any
    scale: float

    def add_to_weight(
        self, weight: Any, dtype: Any, scratch: Scratch | None = None, device: Any = "cpu"
    ) -> Any:
        """The weight in ``dtype`` plus the product, as ``merge`` adds it: computed in float32, then rounded.

        Pass the same ``scratch`` to every call: allocating memory per product takes three times as long as
        the products. ``device`` computes and holds the sum: a card adds a 7B's in a second, its host in 20.
        """
        import torch

        shape = (self.up.shape[0], self.down.shape[1])
        buffers: Scratch = {} if scratch is None else scratch
        if (shape, dtype) not in buffers:
            buffers[shape, dtype] = (
                torch.empty(shape, device=device),
                torch.empty(shape, dtype=dtype, device=device),
            )
        product, rounded = buffers[shape, dtype]
        torch.matmul(self.up.to(device).float(), self.down.to(device).float(), out=product)
        if self.scale != 1.0:
            product.mul_(self.scale)
        return weight.to(device, dtype) + rounded.copy_(product)


def read_lora_deltas(folder: Path) -> dict[str, LoraDelta]:
    """Every changed module by its name in the model, such as ``model.layers.0.self_attn.q_proj``.
    AdapterError if the file is damaged or incomplete."""
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
        match = FACTOR_KEY.fullmatch(key)
        if match:
            factors.setdefault(match[1], {})[match[2]] = tensor
    if not factors:
        raise AdapterError(f"--adapter {folder}: no module has both lora_A and lora_B")
    deltas = {}
    for module, pair in factors.items():
        if len(pair) != 2:
            raise AdapterError(f"--adapter {folder}: {module} does not have both lora_A and lora_B")
        deltas[module] = LoraDelta(pair["A"], pair["B"], lora_scale(config, module))
    return deltas


def lora_scale(config: Mapping[str, Any], module: str) -> float:
    """alpha / rank (with ``use_rslora``: / root of the rank), by the module's own patterns if any match."""
    rank = float(_match_pattern(config.get("rank_pattern") or {}, module, config["r"]))
    alpha = float(_match_pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _match_pattern(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the end of the module's name, as in PEFT's
    ``get_pattern_key``."""
    matches = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matches, otherwise)


def changed_weights(
    weights: Iterable[tuple[str, Any]],
    touched: set[str],
    changes: Mapping[str, LoraDelta],
    dtype: Any,
    device: Any = "cpu",
) -> Iterator[tuple[str, Any]]:
    """The checkpoint's tensors of the ``touched`` modules, with the changes added on ``device``.
    AdapterError if a changed module has no weight."""
    left, scratch = set(changes), Scratch()
    for name, tensor in weights:
        module, _, kind = name.rpartition(".")
        if module not in touched:
            continue
        if kind == "weight" and module in changes:
            left.discard(module)
            yield name, changes[module].add_to_weight(tensor, dtype, scratch, device)
        else:
            yield name, tensor
    if left:
        raise AdapterError(
            f"the model's files have no weight for {sorted(left)[0]}, which the adapter changes; use"
            " --adapter-mode merge"
        )


def expand_packed_modules(modules: Iterable[str], packed: Mapping[str, list[str]]) -> set[str]:
    """The modules, and those that an engine packs into one matrix with them (q, k, v; gate, up), which must
    be written together."""
    expanded = set(modules)
    for module in list(expanded):
        parent, _, leaf = module.rpartition(".")
        for parts in packed.values():
            if leaf in parts:
                expanded |= {f"{parent}.{part}" for part in parts}
    return expanded


def _read_adapter_config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "adapter_config.json", AdapterError)
