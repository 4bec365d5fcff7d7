"""A model's size, read from its config.json and the headers of its weight files, without torch.

In: a directory, a hub id, or ``demo``. Out: ``ModelFacts``; None if nothing is known. Sources in this order:
local directory, the hub's cache, known shapes, the hub's metadata (a few kB, and only if quick). Counts are
exact from safetensors headers, else by the shape of a Llama-like decoder (Llama, Qwen, Gemma, EXAONE,
mixtures of experts). Standard library only. Knows nothing of cards.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.machine.packages import expand_home, hub_cache, hub_endpoint

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
_MAX_NUMBER = 1 << 31  # for layers and sizes in a config.json
_UNREADABLE = (  # errors that a malformed config or header can cause
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
_PLAIN_MLP: tuple[str, ...] = (
    "gpt_neox",
    "gpt2",
    "gptj",
    "gpt_neo",
    "gpt_bigcode",
    "opt",
    "bloom",
    "falcon",
    "mpt",
)
_PLAIN_MLP += ("phi", "codegen", "starcoder2")
_TABLES = re.compile(r"embed|lm_head|\bwte\b|\bwpe\b")
# Shapes known without the hub: the default model's and the demo's, as their makers published them.
_KNOWN: dict[str, dict[str, Any]] = {
    "skt/A.X-4.0-Light": {
        "model_type": "qwen2",
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
        "model_type": "gemma3_text",
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
    """A model's size. Counts are of weights, not bytes; unknown fields are 0."""

    name: str
    source: str  # where this was read
    parameters: int
    linear: int = 0  # in the decoder's linear layers, which quantisation shrinks
    active: int = 0  # of those, the ones that a token uses (fewer in a mixture of experts)
    stored_bytes: int = 0  # of the weight files
    stored_as: str = ""  # float32, bfloat16, ...; for a quantised repository its method: awq, gptq, ...
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
    model_types: tuple[str, ...] = ()  # transformers' names of the architecture and its parts

    @property
    def unquantised_parameters(self) -> int:
        """Embeddings, head and norms, which every quantisation used here keeps in 16 bit."""
        return self.parameters - self.linear

    @property
    def kv_values_per_token(self) -> int:
        """Values per token in the key-value cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def flops_per_token(self) -> float:
        """FLOPs of one prompt token, without the head and attention over the prompt (under 2 % here)."""
        return 2.0 * (self.active or self.linear or self.parameters)


def find_model_facts(name: str, timeout_sec: float = 2.0, offline: bool = False) -> ModelFacts | None:
    """A model's size from all sources; the hub is queried last, for at most ``timeout_sec`` twice."""
    folder = expand_home(name)
    if folder.is_dir() and name != "demo":  # "demo" always means the model, even beside a folder of that name
        return facts_from_directory(folder, name)
    cached = _cached_snapshot(name)
    facts = facts_from_directory(cached, name, "hub cache") if cached else None
    if facts is not None:
        return facts
    if name in _KNOWN:
        return facts_from_config(_KNOWN[name], name, "known shape")
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
    """The size of a model in the Hugging Face layout; None if its config.json cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        facts = facts_from_config(config, name, source)
    except _UNREADABLE:
        return None
    tensors = []
    for path in sorted(folder.glob("*.safetensors")):
        tensors += read_safetensors_header(path)
    return _with_exact_counts(facts, tensors) if tensors and _has_all_shards(folder) else facts


def _has_all_shards(folder: Path) -> bool:
    """Whether all shards named by the index exist (a cache may have only some)."""
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
    """Replace the counts by shape with those of the tensors. Packed (quantised) tensors give bytes only."""
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
    """Counts by shape; a multimodal model's ``text_config`` overrides the top level. ValueError for a config
    without layers, width or vocabulary.
    """
    text = {**config, **(config.get("text_config") or {})}

    def number(*keys: str, default: int = 0) -> int:
        values = (text.get(key) for key in keys)
        return next((int(v) for v in values if isinstance(v, int) and 0 < v < _MAX_NUMBER), default)

    layers = number("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    hidden = number("hidden_size", "n_embd", "d_model")
    heads = number("num_attention_heads", "n_head", "n_heads", default=1)
    kv_heads = number("num_key_value_heads", default=heads)
    head_dim = number("head_dim", default=hidden // heads)
    intermediate = number("intermediate_size", "n_inner", default=4 * hidden)
    vocabulary = number("vocab_size")
    if not (layers and hidden and vocabulary):
        raise ValueError(f"{name}: its config names no layers, width or vocabulary")
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    matrices = 2 if text.get("model_type") in _PLAIN_MLP else 3
    dense = matrices * hidden * intermediate
    experts = number("num_local_experts", "num_experts", "n_routed_experts")
    expert = 3 * hidden * number("moe_intermediate_size", default=intermediate)
    shared = number("n_shared_experts") * expert + 3 * hidden * number("shared_expert_intermediate_size")
    used = number("num_experts_per_tok", default=1)
    mlp, mlp_active = (experts * expert + shared, used * expert + shared) if experts else (dense, dense)
    linear, active = layers * (attention + mlp), layers * (attention + mlp_active)
    tables = vocabulary * hidden * (1 if text.get("tie_word_embeddings", True) else 2)
    method = repository_quantization(config) or ""
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
        experts=layers * experts * expert,
        mlp_matrices=matrices,
        model_types=read_model_types(config),
    )


def read_model_types(config: dict[str, Any]) -> tuple[str, ...]:
    """The ``model_type`` of a config.json, then those of its parts (text, vision, ...)."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    return tuple(dict.fromkeys(str(part["model_type"]) for part in parts if part.get("model_type")))


def repository_quantization(config: dict[str, Any]) -> str | None:
    """How a repository's weights are quantised ("awq", "gptq", "bitsandbytes", ...), from its config.json;
    "unknown" if it says that they are, and not how."""
    declared = config.get("quantization_config") or config.get("compression_config")
    if not declared:
        return None
    return str((declared.get("quant_method") if isinstance(declared, dict) else "") or "unknown")


def _cached_snapshot(name: str) -> Path | None:
    """The newest cached snapshot with a config, in the client's layout models--ORG--NAME/snapshots/COMMIT."""
    snapshots = hub_cache() / ("models--" + name.replace("/", "--")) / "snapshots"
    with contextlib.suppress(OSError):
        complete = [path for path in snapshots.iterdir() if (path / "config.json").exists()]
        return max(complete, key=lambda path: path.stat().st_mtime, default=None)
    return None


def _facts_from_hub(name: str, timeout_sec: float) -> ModelFacts | None:
    """From the hub's public metadata, without a token: a gated repository shows its size, not its config."""
    endpoint = hub_endpoint()
    config = _fetch_json(f"{endpoint}/{name}/resolve/main/config.json", timeout_sec)
    metadata = _fetch_json(f"{endpoint}/api/models/{name}", timeout_sec) or {}
    facts = None
    if config:
        with contextlib.suppress(*_UNREADABLE):
            facts = facts_from_config(config, name, "hub")
    counts = (metadata.get("safetensors") or {}).get("parameters") or {}
    if not counts:
        return facts
    total = sum(counts.values())
    stored = int(sum(count * DTYPE_BYTES.get(dtype, 2.0) for dtype, count in counts.items()))
    if facts is None:
        method = repository_quantization(metadata.get("config") or {}) or ""
        return ModelFacts(
            name=name,
            source="hub metadata",
            parameters=total,
            stored_bytes=stored,
            stored_as=method or max(counts, key=lambda dtype: counts[dtype]),
            quantised=bool(method),
        )
    return replace(facts, parameters=facts.parameters if facts.quantised else total, stored_bytes=stored)


def _fetch_json(address: str, timeout_sec: float) -> dict[str, Any] | None:
    request = urllib.request.Request(address, headers={"User-Agent": "kmmlu-fast"})
    with (
        contextlib.suppress(OSError, ValueError),
        urllib.request.urlopen(request, timeout=timeout_sec) as answer,
    ):
        loaded = json.loads(answer.read(1 << 20))
        return loaded if isinstance(loaded, dict) else None
    return None
