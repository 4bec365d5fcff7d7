"""How large a model is, read from its config.json and the headers of its weights: no weight is read, no
torch.

In: a directory, a hub id, or ``demo``. Out: ``ModelFacts``; None where nothing is known. Looked up in
this order: local directory, the hub's cache, the shapes known beforehand, the hub's metadata (a few kB,
and only if quick). Counts are exact from safetensors headers, else by the shape of a Llama-like decoder
(Llama, Qwen, Gemma, EXAONE, mixtures of experts). Only the standard library. Knows nothing of cards.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import struct
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.machine.packages import expand_home, hub_cache

DTYPE_BYTES = {
    "F64": 8.0,
    "F32": 4.0,
    "BF16": 2.0,
    "F16": 2.0,
    "F8_E4M3": 1.0,
    "I32": 4.0,
    "I8": 1.0,
    "U8": 1.0,
}
_MAX_HEADER_BYTES = 100 << 20  # the limit of the safetensors format
_MAX_NUMBER = 1 << 31  # of a config.json: layers, sizes; more is no model's
_UNREADABLE = (  # what a config or header that is none ends in, read by the standard library alone
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
)
# Families whose MLP has two matrices, not a gated one of three.
_PLAIN_MLP = frozenset(
    [
        "gpt_neox",
        "gpt2",
        "gptj",
        "gpt_neo",
        "gpt_bigcode",
        "opt",
        "bloom",
        "falcon",
        "mpt",
        "phi",
        "codegen",
        "starcoder2",
    ]
)
_TABLES = re.compile(r"embed|lm_head|\bwte\b|\bwpe\b")
# Shapes that are known without the hub: the default model's and the demo's, as their makers published them.
_KNOWN: dict[str, dict[str, Any]] = {
    "skt/A.X-4.0-Light": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 102400,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    },
    "demo": {
        "hidden_size": 640,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 2048,
        "head_dim": 256,
        "vocab_size": 262144,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model's size. Counts are of weights, not bytes; a field that is not known is 0."""

    name: str
    source: str  # where this was read
    parameters: int
    linear: int = 0  # in the decoder's linear layers: what quantisation shrinks
    active: int = 0  # of those, the ones a token passes through (fewer in a mixture of experts)
    stored_bytes: int = 0  # of the weight files
    stored_as: str = ""  # float32, bfloat16, ...; of a quantised repository its method: awq, gptq, ...
    quantised: bool = False
    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocabulary: int = 0
    experts: int = 0  # of ``linear``, those in matrices of experts, which bitsandbytes leaves as they are
    mlp_matrices: int = 3  # gate, up and down; 2 in older families

    @property
    def unquantised_parameters(self) -> int:
        """Embeddings, head and norms: kept in 16 bit by every quantisation used here."""
        return self.parameters - self.linear

    @property
    def kv_values_per_token(self) -> int:
        """Values of the key-value cache a token."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def flops_per_token(self) -> float:
        """Of one prompt token, without the head and attention over the prompt (under 2 % here)."""
        return 2.0 * (self.active or self.linear or self.parameters)


def find_model_facts(name: str, timeout_sec: float = 2.0, offline: bool = False) -> ModelFacts | None:
    """What is known of that model here; the hub is asked last, for at most ``timeout_sec`` twice."""
    folder = expand_home(name)
    if folder.is_dir() and name != "demo":  # which is a model's name everywhere, also beside such a folder
        return facts_from_directory(folder, name)
    cached = _cached_snapshot(name)
    if cached is not None and (found := facts_from_directory(cached, name, "hub cache")):
        return found
    if name in _KNOWN:
        return facts_from_config(_KNOWN[name], name, "shape known beforehand")
    if offline or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    return _facts_from_hub(name, timeout_sec)


def find_model_folder(name: str) -> Path | None:
    """The directory with that model's config.json on this computer: given, or the hub cache's newest."""
    folder = expand_home(name)
    if name != "demo" and (folder / "config.json").exists():
        return folder
    return _cached_snapshot(name) if name.count("/") == 1 else None


def facts_from_directory(folder: Path, name: str, source: str = "local directory") -> ModelFacts | None:
    """A model in the Hugging Face layout; None where its config.json cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        facts = facts_from_config(config, name, source)
    except _UNREADABLE:
        return None
    tensors = [
        tensor for path in sorted(folder.glob("*.safetensors")) for tensor in read_safetensors_header(path)
    ]
    return _with_exact_counts(facts, tensors) if tensors and _has_all_shards(folder) else facts


def _has_all_shards(folder: Path) -> bool:
    """Whether all the shards that the index names are there (a cache may hold some)."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return True
    with contextlib.suppress(*_UNREADABLE):
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).exists() for shard in shards)
    return False


def read_safetensors_header(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of a safetensors file's tensors, as the format describes; [] where it is none."""
    entries, _ = _read_header(path)
    try:
        return [(name, str(entry["dtype"]), tuple(entry["shape"])) for name, entry in entries.items()]
    except _UNREADABLE:
        return []


def tensor_places(path: Path) -> list[tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends, in bytes from the file's start."""
    entries, start = _read_header(path)
    try:
        places = [entry["data_offsets"] for entry in entries.values()]
        return sorted((start + int(begin), start + int(end)) for begin, end in places)
    except _UNREADABLE:
        return []


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's entries by tensor name, and where its data begin; ({}, 0) where it is none."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MAX_HEADER_BYTES:
                return {}, 0
            header = json.loads(file.read(size))
        return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + size
    except (*_UNREADABLE, struct.error):
        return {}, 0


def _with_exact_counts(facts: ModelFacts, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> ModelFacts:
    """The counts of the very weights, in place of those by shape. Packed weights tell their bytes only."""
    parameters = linear = 0
    stored = 0.0
    for name, dtype, shape in tensors:
        values = math.prod(shape)
        stored += values * DTYPE_BYTES.get(dtype, 2.0)
        parameters += values
        linear += values if len(shape) >= 2 and not _TABLES.search(name) else 0
    if facts.quantised or not linear:
        return replace(facts, stored_bytes=int(stored))
    active = round(linear * facts.active / facts.linear) if facts.linear else linear
    return replace(
        facts,
        parameters=parameters,
        linear=linear,
        active=active,
        stored_bytes=int(stored),
        experts=min(facts.experts, linear),
    )


def facts_from_config(config: dict[str, Any], name: str, source: str) -> ModelFacts:
    """Counts by shape; text settings of a multimodal model are lifted to the top. ValueError for a
    config that names no layers, width or vocabulary.
    """
    text = {**config, **(config.get("text_config") or {})}

    def number(*keys: str, default: int = 0) -> int:
        found = (text.get(key) for key in keys)
        return next((int(v) for v in found if isinstance(v, int) and 0 < v < _MAX_NUMBER), default)

    layers, hidden = (
        number("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        number("hidden_size", "n_embd", "d_model"),
    )
    heads = number("num_attention_heads", "n_head", "n_heads", default=1)
    kv_heads = number("num_key_value_heads", default=heads)
    head_dim = number("head_dim", default=hidden // heads)
    intermediate, vocabulary = (
        number("intermediate_size", "n_inner", default=4 * hidden),
        number("vocab_size"),
    )
    if not (layers and hidden and vocabulary):
        raise ValueError(f"{name}: its config names no layers, width or vocabulary")
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    matrices = 2 if text.get("model_type") in _PLAIN_MLP else 3
    dense = matrices * hidden * intermediate
    experts = number("num_local_experts", "num_experts", "n_routed_experts")
    each = 3 * hidden * number("moe_intermediate_size", default=intermediate)
    shared = number("n_shared_experts") * each + 3 * hidden * number("shared_expert_intermediate_size")
    used = number("num_experts_per_tok", default=1)
    mlp, mlp_active = (experts * each + shared, used * each + shared) if experts else (dense, dense)
    linear, active = layers * (attention + mlp), layers * (attention + mlp_active)
    tables = vocabulary * hidden * (1 if text.get("tie_word_embeddings", True) else 2)
    method = _quantization_method(config)
    return ModelFacts(
        name=name,
        source=source,
        parameters=linear + tables + layers * 2 * hidden,
        linear=linear,
        active=active,
        stored_as=method or str(text.get("dtype") or text.get("torch_dtype") or "").removeprefix("torch."),
        quantised=bool(method),
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        experts=layers * experts * each,
        mlp_matrices=matrices,
    )


def _quantization_method(config: dict[str, Any]) -> str:
    quantisation = config.get("quantization_config") or config.get("compression_config") or {}
    return str(quantisation.get("quant_method", "")) if isinstance(quantisation, dict) else ""


def _cached_snapshot(name: str) -> Path | None:
    """The newest cached snapshot with a config. The client's layout: models--ORG--NAME/snapshots/COMMIT."""
    snapshots = hub_cache() / ("models--" + name.replace("/", "--")) / "snapshots"
    with contextlib.suppress(OSError):
        found = [path for path in snapshots.iterdir() if (path / "config.json").exists()]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)
    return None


def _facts_from_hub(name: str, timeout_sec: float) -> ModelFacts | None:
    """From the hub's public metadata, without a token: a gated repository shows its size, not its config."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    config = _fetch_json(f"{endpoint}/{name}/resolve/main/config.json", timeout_sec)
    about = _fetch_json(f"{endpoint}/api/models/{name}", timeout_sec)
    facts = None
    with contextlib.suppress(*_UNREADABLE):
        facts = facts_from_config(config, name, "hub") if config else None
    counts = ((about or {}).get("safetensors") or {}).get("parameters") or {}
    if not counts:
        return facts
    total = sum(counts.values())
    stored = int(sum(count * DTYPE_BYTES.get(dtype, 2.0) for dtype, count in counts.items()))
    if facts is None:
        method = _quantization_method((about or {}).get("config") or {})
        largest = max(counts, key=lambda dtype: counts[dtype])
        return ModelFacts(
            name=name,
            source="hub metadata",
            parameters=total,
            stored_bytes=stored,
            stored_as=method or largest,
            quantised=bool(method),
        )
    return (
        replace(facts, stored_bytes=stored)
        if facts.quantised
        else replace(facts, parameters=total, stored_bytes=stored)
    )


def _fetch_json(address: str, timeout_sec: float) -> dict[str, Any] | None:
    request = urllib.request.Request(address, headers={"User-Agent": "kmmlu-fast"})
    with (
        contextlib.suppress(OSError, ValueError),
        urllib.request.urlopen(request, timeout=timeout_sec) as answer,
    ):
        loaded = json.loads(answer.read(1 << 20))
        return loaded if isinstance(loaded, dict) else None
    return None
