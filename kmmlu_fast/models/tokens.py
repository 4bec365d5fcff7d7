"""Tokenises with the ``tokenizers`` library alone if that gives the same ids as transformers.

In: a ``Model``. Out: its tokenizer: transformers' own, or a light one that loads in a tenth of the time. When
a model is first opened, both are loaded and their full states (vocabulary, merges, normaliser, templates)
compared. The result is cached under the digest of the tokenizer's files and the libraries' versions, with
what prompts need of the rest: the chat template and the special tokens by role. What else only transformers
has loads its tokenizer on demand. Knows nothing of prompts.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.files import cache_root, read_json, write_json_atomically
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.machine.environment import package_version
from kmmlu_fast.models.gguf import is_gguf_path
from kmmlu_fast.models.model import Model, load_tokenizer
from kmmlu_fast.models.model_files import model_content_digest

_RECORD_FORMAT = 3  # of what is kept in the cache
_SPECIAL = ("all_special_ids", "all_special_tokens", "special_tokens_map", "unk_token_id")


class LightTokenizer:
    """A model's tokenizer.json; all else comes from transformers' tokenizer, loaded on demand. ``special``:
    its attributes that need not be loaded.
    """

    def __init__(
        self, model: Model, backend: Any, chat_template: str | None, special: dict[str, Any] | None = None
    ) -> None:
        self._model, self.backend_tokenizer, self.chat_template = model, backend, chat_template
        self._special = special or {}
        self._full: Any = None

    def __call__(
        self, texts: str | Sequence[str], add_special_tokens: bool = True, **options: Any
    ) -> dict[str, Any]:
        """``input_ids`` of a text, or of each text. Any other ``options`` are passed to
        transformers' tokenizer."""
        if any(options.values()):
            return dict(self.transformers_tokenizer(texts, add_special_tokens=add_special_tokens, **options))
        if isinstance(texts, str):
            row = self.backend_tokenizer.encode(texts, add_special_tokens=add_special_tokens)
            return {"input_ids": row.ids}
        rows = self.backend_tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return {"input_ids": [row.ids for row in rows]}

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def transformers_tokenizer(self) -> Any:
        """transformers' own tokenizer, loaded on first use."""
        if self._full is None:
            self._full = load_tokenizer(self._model)
        return self._full

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_special":
            raise AttributeError(name)
        if name in self._special:
            return copy.deepcopy(self._special[name])
        return getattr(self.transformers_tokenizer, name)


def open_tokenizer(model: Model) -> Any:
    """The model's tokenizer: the light one if it is known to be equivalent, else transformers'. The first
    call finds out and caches the result."""
    if is_gguf_path(model.path):
        from kmmlu_fast.models.llama_cpp import GgufTokenizer

        return GgufTokenizer(Path(model.path))
    folder = model.folder()
    if not (folder / "tokenizer.json").is_file():
        return load_tokenizer(model)
    record = cache_root() / "tokenizers" / f"{_tokenizer_digest(folder)}.json"
    known: dict[str, Any] | None = None
    with contextlib.suppress(Exception):  # missing or damaged: compared again
        known = read_json(record)
    if known is None:
        full = load_tokenizer(model)
        known = {
            "same": is_equivalent_tokenizer(full, folder),
            "chat_template": _chat_template(full),
            "special": _special_attributes(full),
        }
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomically(record, known)
        return full
    if known.get("same") is not True:
        return load_tokenizer(model)
    special = known.get("special")
    if not isinstance(special, dict) or not set(special) <= set(_SPECIAL):
        special = None
    return LightTokenizer(model, _read_tokenizer_file(folder), known.get("chat_template"), special)


def is_equivalent_tokenizer(full: Any, folder: Path) -> bool:
    """Whether transformers' tokenizer does exactly what tokenizer.json declares, and nothing else."""
    backend = getattr(full, "backend_tokenizer", None)
    if backend is None or backend.padding or backend.truncation:
        return False
    light = _read_tokenizer_file(folder)
    if light.padding or light.truncation or len(full) != light.get_vocab_size(with_added_tokens=True):
        return False
    light_state, full_state = light.to_str(), backend.to_str()
    if light_state == full_state:
        return True
    return bool(_id_relevant_state(json.loads(light_state)) == _id_relevant_state(json.loads(full_state)))


def _id_relevant_state(state: Any) -> Any:
    """A tokenizer's state without what ids do not depend on: offsets, and "" for no prefix or suffix."""
    if isinstance(state, dict):
        relevant = {
            name: _id_relevant_state(value) for name, value in state.items() if name != "trim_offsets"
        }
        return {name: None if value == "" else value for name, value in relevant.items()}
    if isinstance(state, list):
        return [_id_relevant_state(value) for value in state]
    return state


def _read_tokenizer_file(folder: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more specific
        raise ModelError(
            f"{folder / 'tokenizer.json'}: is not a tokenizer ({one_line(str(error), 200)})"
        ) from error


def _special_attributes(full: Any) -> dict[str, Any]:
    """The special tokens, as far as JSON gives them back as they are."""
    attributes = {name: getattr(full, name, None) for name in _SPECIAL}
    return {name: value for name, value in attributes.items() if value is not None and _survives_json(value)}


def _survives_json(value: Any) -> bool:
    """Whether only plain texts, numbers, lists and dicts are in it: an added token is of another type."""
    if isinstance(value, dict):
        return all(type(name) is str and _survives_json(each) for name, each in value.items())
    if isinstance(value, list):
        return all(map(_survives_json, value))
    return type(value) in (str, int)


def _chat_template(full: Any) -> str | None:
    template = getattr(full, "chat_template", None)
    if isinstance(template, dict):  # of several, the one that conversations without tools take
        template = template.get("default")
    return template if isinstance(template, str) else None


def _tokenizer_digest(folder: Path) -> str:
    """Digest of all the model's files but weights, and of the libraries' versions."""
    versions = [package_version(name) for name in ("transformers", "tokenizers")]
    files = model_content_digest(folder, weights=False)
    return text_digest(repr((_RECORD_FORMAT, versions, files)))
