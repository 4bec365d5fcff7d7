"""Reads a GGUF file's header: what the model is, how it tokenises, which tensors it holds.

In: a path. Out: ``GgufFile``; ModelError in one line for another file, or for one that is cut short. Reads no
weights, and needs no package. Format: llama.cpp ``ggml/include/gguf.h`` (version 2 and 3, little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kmmlu_fast.core.errors import ModelError

SUFFIX = ".gguf"
GGUF_IS_SERVED_ONLY = (
    "a GGUF file is only asked, by llama.cpp; give the model that it was made from, a directory or a hub id"
)
_MAX_COUNT = 1 << 26  # of keys, tensors or array items: more is damage
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# ggml_type -> name, values per block, bytes per block (ggml-common.h)
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """One tensor: ``shape`` as PyTorch has it (outputs first), ``start`` in bytes from the file's start."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    start: int

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES.get(self.type_id, (f"type {self.type_id}", 1, 0))[0]

    @property
    def size_bytes(self) -> int:
        """0 if the type is not known here."""
        _, values, block_bytes = TENSOR_TYPES.get(self.type_id, ("", 1, 0))
        count = 1
        for size in self.shape:
            count *= size
        return count // values * block_bytes


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF header."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def model_value(self, name: str) -> Any:
        """A setting of the architecture, such as ``context_length``; None if the file does not say."""
        return self.metadata.get(f"{self.architecture}.{name}")

    @property
    def tokens(self) -> list[str]:
        return list(self.metadata.get("tokenizer.ggml.tokens", ()))

    def token_id(self, role: str) -> int | None:
        """The id of ``bos``, ``eos``, ``eot``, ... as the file declares it."""
        value = self.metadata.get(f"tokenizer.ggml.{role}_token_id")
        return value if isinstance(value, int) else None

    @property
    def chat_template(self) -> str | None:
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    def config(self) -> dict[str, Any]:
        """The settings that a config.json would have under these names."""
        names = {
            "max_position_embeddings": "context_length",
            "hidden_size": "embedding_length",
            "num_hidden_layers": "block_count",
            "num_attention_heads": "attention.head_count",
            "num_key_value_heads": "attention.head_count_kv",
            "intermediate_size": "feed_forward_length",
        }
        found = {name: self.model_value(key) for name, key in names.items()}
        config = {name: value for name, value in found.items() if isinstance(value, int)}
        return {"model_type": self.architecture, "vocab_size": len(self.tokens), **config}


def is_gguf_path(name: str) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return name.lower().endswith(SUFFIX)


def read_gguf_file(path: Path) -> GgufFile:
    """The header of a GGUF file; ModelError if it is another file or incomplete."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path}: is not a GGUF file; give a file that llama.cpp's converter wrote")
            header = _Reader(file, path.stat().st_size)
            version, tensor_count, key_count = header.read("IQQ")
            if version not in (2, 3) or tensor_count > _MAX_COUNT or key_count > _MAX_COUNT:
                raise ModelError(f"{path}: GGUF version {version} is not supported (2 and 3 are)")
            metadata = {header.read_text(): header.read_value() for _ in range(key_count)}
            raw = [header.read_tensor() for _ in range(tensor_count)]
            alignment = metadata.get("general.alignment", 32)
            begin = -(-file.tell() // alignment) * alignment
            tensors = tuple(
                GgufTensor(name=name, shape=shape, type_id=type_id, start=begin + offset)
                for name, shape, type_id, offset in raw
            )
            size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give a GGUF file") from error
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"{path}: its GGUF header is cut short or damaged; export or copy it again"
        ) from error
    end = max((tensor.start + tensor.size_bytes for tensor in tensors), default=0)
    if end > size:
        raise ModelError(
            f"{path}: is cut short: {size:,} bytes of {end:,}; export or copy it again (was the disk full?)"
        )
    return GgufFile(path, metadata, tensors)


def gguf_digest(path: Path) -> str:
    """sha256 (16 hex digits) of every byte; hashed once, then remembered by the file's state."""
    from kmmlu_fast.core.content_digests import content_digests

    return content_digests([path], f"model {path.name}: reading every byte once")[path][:16]


class _Reader:
    """Little-endian values of a GGUF header. struct.error if the file ends early."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, kinds: str) -> tuple[Any, ...]:
        form = f"<{kinds}"
        return struct.unpack(form, self._file.read(struct.calcsize(form)))

    def read_text(self) -> str:
        (length,) = self.read("Q")
        if length > self._size:
            raise struct.error("a text longer than the file")
        data = self._file.read(length)
        if len(data) < length:
            raise struct.error("cut short")
        return data.decode("utf-8", "replace")

    def read_value(self) -> Any:
        (kind,) = self.read("I")
        return self._read_of_kind(kind)

    def _read_of_kind(self, kind: int) -> Any:
        if kind == _STRING:
            return self.read_text()
        if kind != _ARRAY:
            return self.read(_SCALARS[kind])[0]
        item, count = self.read("IQ")
        if count > _MAX_COUNT:
            raise struct.error("an array longer than the file")
        if item in _SCALARS:
            return list(self.read(f"{count}{_SCALARS[item]}"))
        return [self._read_of_kind(item) for _ in range(count)]

    def read_tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.read_text()
        (dimensions,) = self.read("I")
        if dimensions > 8:
            raise struct.error("more dimensions than a tensor has")
        shape = self.read(f"{dimensions}Q")
        type_id, offset = self.read("IQ")
        return name, tuple(reversed(shape)), type_id, offset
