"""An artefact to be checked: a model directory, a GGUF file, or a model that a server offers.

In: what the user named. Out: its tokenizer, stop ids and settings, without loading weights. Knows nothing of
the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kmmlu_fast.core.errors import ConfigError, ModelError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.machine.model_size import repository_quantization
from kmmlu_fast.machine.packages import quantization_names
from kmmlu_fast.models.chat_files import GENERATION_CONFIG as GENERATION
from kmmlu_fast.models.gguf import is_gguf_path, read_gguf_file
from kmmlu_fast.models.llama_cpp import GgufTokenizer
from kmmlu_fast.models.model import Model, load_tokenizer, resolve_model
from kmmlu_fast.shipping.stops import eos_ids
from kmmlu_fast.shipping.tensors import read_json_file

# Texts that llama.cpp takes for the end of a text by themselves (llama-vocab.cpp).
_ENDS_OF_TEXT = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
    )
)
_READ_BY_TRANSFORMERS = ("bitsandbytes",)
_READ_AS_ANOTHER = ("auto-round", "auto_round", "compressed_tensors")  # vLLM has other names for these


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What is shipped. ``path`` is None for a server's model."""

    name: str
    kind: Literal["directory", "gguf", "server"]
    path: Path | None
    model: Model | None
    base_url: str | None = None

    @property
    def quantisation(self) -> str | None:
        """How its weights are quantised, None for 16 bits or more."""
        if self.kind == "gguf":
            assert self.path is not None
            types = {
                tensor.type_name for tensor in read_gguf_file(self.path).tensors if len(tensor.shape) > 1
            }
            packed = sorted(types - {"F32", "F16", "BF16"})
            return ", ".join(packed) or None
        return repository_quantization(self.model.config()) if self.model else None

    @property
    def stored_dtype(self) -> str:
        """The type in a directory's config.json, such as ``float32``; "" if it names none."""
        config = self.model.config() if self.model else {}
        return str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")

    def load_tokenizer(self) -> Any | None:
        """Its own tokenizer; None for a server's model."""
        if self.kind == "gguf":
            assert self.path is not None
            return GgufTokenizer(self.path)
        return load_tokenizer(self.model) if self.model else None

    def stop_ids(self, tokenizer: Any) -> set[int] | None:
        """The tokens that end a text where it is served; None if that is not known."""
        if self.kind == "server" or self.path is None:
            return None
        if self.kind == "directory":
            ids = eos_ids(read_json_file(self.path / GENERATION)) or eos_ids(
                read_json_file(self.path / "config.json")
            )
            return {*ids, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])}
        file = tokenizer.file
        declared = {file.token_id(role) for role in ("eos", "eot", "eom")} - {None}
        return declared | {number for number, text in enumerate(file.tokens) if text in _ENDS_OF_TEXT}


def open_artefact(spec: str, base_url: str | None) -> Artefact:
    """The artefact of that name. ConfigError or ModelError if there is none."""
    path = expand_path(spec, "artefact")
    if is_gguf_path(spec):
        if not path.is_file():
            raise ModelError(
                f"{spec}: no such file; give a GGUF file, a model directory or a served model's name"
            )
        return Artefact(name=path.name, kind="gguf", path=read_gguf_file(path.resolve()).path, model=None)
    if path.is_dir():
        inside = sorted(path.glob("*.gguf"))
        if inside and not (path / "config.json").exists():
            raise ConfigError(f"{spec}: holds GGUF files; name them, such as {inside[0]}")
        model = resolve_model(spec)
        _check_quantisation(spec, repository_quantization(model.config()))
        return Artefact(name=path.name, kind="directory", path=path.resolve(), model=model)
    if path.is_file():
        raise ModelError(f"{spec}: is a file, and no GGUF file; give a GGUF file or a model directory")
    if base_url is not None:
        return Artefact(name=spec, kind="server", path=None, model=None, base_url=base_url)
    raise ModelError(f"{spec}: no such file or directory; for a model that a server offers give --base-url")


def _check_quantisation(spec: str, stored_as: str | None) -> None:
    """ModelError for weights that neither transformers nor the installed vLLM reads (exl2, for example):
    found here, not minutes later."""
    read_by_vllm = quantization_names()
    if stored_as in (None, *_READ_BY_TRANSFORMERS) or not read_by_vllm:
        return
    if str(stored_as).lower() not in {*read_by_vllm, *_READ_AS_ANOTHER}:
        raise ModelError(
            f"{spec}: is quantised as {bounded_repr(stored_as)}, which the installed vLLM does not read;"
            " serve it with the program it was made for, and check the served model: its name, and --base-url"
        )
