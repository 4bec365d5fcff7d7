"""Reads rows of named tensors from a model directory or a GGUF file, as float32, under the directory's names.

In: paths. Out: a ``TensorSource``. What a converter changes (names, Gemma's norms + 1, Llama's permuted rows)
is undone here. Knows nothing of adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.reading import read_json
from kmmlu_fast.models.gguf import GgufFile, is_gguf_path, read_gguf_file

_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_GEMMA_BLOCK = {
    **_BLOCK,
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_TOP = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
_PLAIN = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral")  # dense decoders with these names
_PERMUTED = ("llama", "mistral")


class TensorSource(Protocol):
    """Tensors by the names of a Hugging Face checkpoint."""

    @property
    def names(self) -> list[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def stored_as(self, name: str) -> str: ...
    def read(self, name: str, rows: Any) -> Any:
        """These rows, float32."""
        ...


def open_tensors(path: Path, base: Path | None = None) -> TensorSource | None:
    """The tensors of a directory or of a GGUF file; None if its names are not known here."""
    if is_gguf_path(path.name):
        file = read_gguf_file(path)
        return GgufTensors(file) if file.architecture in _PLAIN else None
    return SafetensorsFolder(path) if any(path.glob("*.safetensors")) else None


class SafetensorsFolder:
    """The safetensors of a model directory, one file or shards."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._files: dict[str, Path] = {}
        self._slices: dict[str, tuple[tuple[int, ...], str]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            if path.name.startswith("adapter"):
                continue
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    part = file.get_slice(key)
                    name = plain_name(key)
                    self._files[name] = path
                    self._slices[name] = (tuple(part.get_shape()), str(part.get_dtype()))
        self._keys = {name: key for key, name in self._original_names(folder).items()}

    def _original_names(self, folder: Path) -> dict[str, str]:
        from safetensors import safe_open

        names: dict[str, str] = {}
        for path in dict.fromkeys(self._files.values()):
            with safe_open(path, framework="pt") as file:
                names |= {key: plain_name(key) for key in file.keys()}  # noqa: SIM118
        return names

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._slices[name][0]

    def stored_as(self, name: str) -> str:
        return self._slices[name][1]

    def read(self, name: str, rows: Any) -> Any:
        from safetensors import safe_open

        with safe_open(self._files[name], framework="pt") as file:
            part = file.get_slice(self._keys[name])
            return (
                part[:][rows.tolist()].float().numpy()
                if len(rows) < self.shape(name)[0]
                else (part[:].float().numpy())
            )


class GgufTensors:
    """The tensors of a GGUF file, under the checkpoint's names."""

    def __init__(self, file: GgufFile) -> None:
        import numpy as np

        self._file = file
        self._data = np.memmap(file.path, dtype=np.uint8, mode="r")
        self._tensors = {
            name: tensor
            for tensor in file.tensors
            if (name := checkpoint_name(tensor.name, file.architecture)) is not None
        }

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def stored_as(self, name: str) -> str:
        return self._tensors[name].type_name

    def read(self, name: str, rows: Any) -> Any:
        import numpy as np
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        raw = self._data[tensor.start : tensor.start + tensor.size_bytes]
        places = self._permuted_rows(name, rows)
        stored = raw.reshape(tensor.shape[0], -1)[places] if len(tensor.shape) > 1 else raw.reshape(1, -1)
        values = dequantize(np.ascontiguousarray(stored), GGMLQuantizationType(tensor.type_id))
        values = np.asarray(values, dtype=np.float32)
        if len(tensor.shape) == 1:
            values = values.reshape(-1)[places]
        gemma_norm = self._file.architecture.startswith("gemma") and name.endswith("norm.weight")
        return values - 1.0 if gemma_norm else values

    def _permuted_rows(self, name: str, rows: Any) -> Any:
        """Where the file keeps the checkpoint's rows: the converter interleaves the halves of Llama's"
        " heads."""
        heads = {"q_proj": "attention.head_count", "k_proj": "attention.head_count_kv"}
        leaf = name.split(".")[-2] if "." in name else ""
        if self._file.architecture not in _PERMUTED or leaf not in heads:
            return rows
        count, total = int(self._file.model_value(heads[leaf])), self.shape(name)[0]
        half = total // count // 2
        head, inside = rows // (2 * half), rows % (2 * half)
        return head * 2 * half + (inside % half) * 2 + inside // half


def checkpoint_name(name: str, architecture: str) -> str | None:
    """The checkpoint's name of a GGUF tensor; None if it has none there."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    parts = stem.split(".")
    block: Mapping[str, str] = _GEMMA_BLOCK if architecture.startswith("gemma") else _BLOCK
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in block:
        return f"model.layers.{parts[1]}.{block[parts[2]]}.{kind}"
    return None


def plain_name(key: str) -> str:
    """A multimodal checkpoint's text model under the names of a text model."""
    for prefix in ("model.language_model.", "language_model.model."):
        if key.startswith(prefix):
            return "model." + key.removeprefix(prefix)
    return key.removeprefix("language_model.") if key.startswith("language_model.lm_head") else key


def read_json_file(path: Path) -> dict[str, Any]:
    """A settings file of a model directory, {} if it is absent or unreadable."""
    try:
        loaded = read_json(path)
    except KmmluError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
