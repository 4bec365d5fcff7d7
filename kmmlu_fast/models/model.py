"""Finds models by name and checks them before any engine starts.

In: a hub id, a local directory or ``demo``. Out: a ``Model`` record and its tokenizer, or ModelError in one
line. Knows nothing of adapters or prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.reading import expand_path, read_json
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line
from kmmlu_fast.machine.hub import describe_hub_failure, hub_problem
from kmmlu_fast.models.demo import demo_model_digest, demo_model_path
from kmmlu_fast.models.gguf import GGUF_IS_SERVED_ONLY, gguf_digest, is_gguf_path, read_gguf_file
from kmmlu_fast.models.model_files import model_content_digest


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be loaded: ``path`` is a local directory or a hub id. ``digest`` identifies every byte
    that decides its answers: of a hub model by the commit, of a local one by the files' contents."""

    name: str
    path: str
    revision: str | None
    digest: str
    trust_remote_code: bool = False  # whether the model's own Python files may run; never asked at run time

    def config(self) -> dict[str, Any]:
        """config.json, with a multimodal model's text settings at the top level."""
        if is_gguf_path(self.path):
            return read_gguf_file(Path(self.path)).config()
        path = _config_path(self.path, self.revision)
        loaded = read_json(path, ModelError)
        for name in ("text_config", "quantization_config"):
            part = loaded.get(name) or {}
            if not isinstance(part, dict):
                raise ModelError(
                    f"{path}: {name} is {bounded_repr(part)}, not an object; give a model that"
                    " transformers can load"
                )
        config = {**loaded, **(loaded.get("text_config") or {})}
        for name in ("hidden_size", "num_hidden_layers", "max_position_embeddings"):
            value = config.get(name)
            if value is not None and (type(value) is not int or not 0 < value < 2**31):
                raise ModelError(
                    f"{path}: {name} is {bounded_repr(value)}; it must be a positive whole number"
                )
        return config

    def folder(self) -> Path:
        """The directory of its files: local, or the hub client's snapshot. ModelError if the hub does not
        have it."""
        return _config_path(self.path, self.revision).parent

    @property
    def context_tokens(self) -> int:
        return int(self.config().get("max_position_embeddings") or 2048)


def resolve_model(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Model:
    """The model of that name. ModelError if the directory is not a model, or the hub cannot be reached or
    does not have it."""
    if name == "demo":
        path = demo_model_path()
        return Model("demo", str(path), None, demo_model_digest(path))
    folder = expand_path(name, "--model")
    if folder.is_dir():
        if not (folder / "config.json").exists():
            hint = ""
            if (folder / "adapter_config.json").exists():
                hint = "; it is an adapter: give it with --adapter and its base with --model"
            raise ModelError(f"model {name}: the directory has no config.json{hint}")
        path = folder.resolve()
        return Model(path.name, str(path), None, model_content_digest(folder), trust_remote_code)
    if is_gguf_path(name) and folder.is_file():
        path = read_gguf_file(folder.resolve()).path
        return Model(path.stem, str(path), None, gguf_digest(path))
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"model {name!r}: no such directory; give a local model directory, a hub id such as"
            " skt/A.X-4.0-Light, or 'demo'"
        )
    commit = _config_path(name, revision).parent.name
    return Model(name, name, commit, commit[:16], trust_remote_code)


def _config_path(path: str, revision: str | None) -> Path:
    if Path(path).is_dir():
        return Path(path) / "config.json"
    why = hub_problem()
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(path, "config.json", revision=revision))
    except Exception as error:  # the hub client raises a dozen kinds; all mean the same to a user
        raise ModelError(
            f"model {path!r}: {describe_hub_failure(why, error)}; check the name, --revision and the network,"
            " or give a local directory, or --model demo"
        ) from error


def load_tokenizer(model: Model) -> Any:
    """The base model's tokenizer (an adapter's own is never used, as in vLLM). ModelError if it is a GGUF
    file: ``tokens.open_tokenizer`` reads those."""
    from transformers import AutoTokenizer

    if is_gguf_path(model.path):
        raise ModelError(f"model {model.path}: {GGUF_IS_SERVED_ONLY}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
        ids = tokenizer("A", add_special_tokens=False)["input_ids"]
        # without any file of it, transformers makes one that knows special tokens only
        has_vocabulary = any(each != tokenizer.unk_token_id for each in ids)
    except Exception as error:  # for malformed files, transformers and tokenizers raise every kind
        raise ModelError(
            f"model {model.name}: its tokenizer cannot be loaded ({explain_loading_error(error, model)})"
        ) from error
    if not has_vocabulary:
        raise ModelError(
            f"model {model.name}: its tokenizer has no vocabulary; copy tokenizer.json (or tokenizer.model,"
            " or vocab.json and merges.txt) into the model's directory"
        )
    return tokenizer


def explain_loading_error(error: BaseException, model: Model) -> str:
    """Why a library could not load a model, on one line; says so if the model needs its own code."""
    if "trust_remote_code" in str(error):
        return "it runs its own Python code with your rights: read it, then give --trust-remote-code"
    return one_line(f"{type(error).__name__}: {error}", 300)
