"""Tokenisation by the ``tokenizers`` library alone, where that gives transformers' very ids.

In: a ``Model``. Out: its tokenizer, transformers' own or a stand-in of a tenth of the loading time. Whether
the stand-in may be used is not assumed: the first time a model is opened, both are loaded and the whole state
of the two (vocabulary, merges, normaliser, templates) is compared; the answer is kept in the cache under the
digest of the tokenizer's files and the libraries' versions. What only transformers knows (chat templates,
special tokens by role) loads it after all. Knows nothing of prompts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.files import cache_root, read_json, write_json_atomically
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.machine.environment import package_version
from kmmlu_fast.models.model import Model, load_tokenizer

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
)


class LightTokenizer:
    """The tokenizer.json of a model; what it does not have itself is transformers' tokenizer's,
    loaded on demand.
    """

    def __init__(self, model: Model, backend: Any, chat_template: str | None) -> None:
        self._model, self.backend_tokenizer, self.chat_template = model, backend, chat_template
        self._full: Any = None

    def __call__(
        self, texts: str | Sequence[str], add_special_tokens: bool = True, **options: Any
    ) -> dict[str, Any]:
        """``input_ids`` of a text, or of each; ``options`` of transformers that ask for more
        are not known here.
        """
        if any(options.values()):
            return dict(self.transformers_tokenizer(texts, add_special_tokens=add_special_tokens, **options))
        if isinstance(texts, str):
            return {
                "input_ids": self.backend_tokenizer.encode(texts, add_special_tokens=add_special_tokens).ids
            }
        rows = self.backend_tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return {"input_ids": [row.ids for row in rows]}

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def transformers_tokenizer(self) -> Any:
        """transformers' tokenizer."""
        if self._full is None:
            self._full = load_tokenizer(self._model)
        return self._full

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.transformers_tokenizer, name)


def open_tokenizer(model: Model) -> Any:
    """The model's tokenizer: the light one where it is known to be the same, else transformers'
    (which settles it for the next time).
    """
    folder = model.folder()
    if not (folder / "tokenizer.json").is_file():
        return load_tokenizer(model)
    record = cache_root() / "tokenizers" / f"{_tokenizer_digest(folder)}.json"
    known: dict[str, Any] | None = None
    with contextlib.suppress(Exception):  # absent or torn: settled again
        known = read_json(record)
    if known is None:
        full = load_tokenizer(model)
        known = {"same": is_equivalent_tokenizer(full, folder), "chat_template": _chat_template(full)}
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomically(record, known)
        return full
    return (
        LightTokenizer(model, _read_tokenizer_file(folder), known.get("chat_template"))
        if known.get("same") is True
        else load_tokenizer(model)
    )


def is_equivalent_tokenizer(full: Any, folder: Path) -> bool:
    """Whether transformers' tokenizer computes with exactly what tokenizer.json says, and adds
    no step of its own.
    """
    backend = getattr(full, "backend_tokenizer", None)
    if backend is None or backend.padding or backend.truncation:
        return False
    light = _read_tokenizer_file(folder)
    if light.padding or light.truncation or len(full) != light.get_vocab_size(with_added_tokens=True):
        return False
    ours, theirs = light.to_str(), backend.to_str()
    return bool(
        ours == theirs or _id_relevant_state(json.loads(ours)) == _id_relevant_state(json.loads(theirs))
    )


def _id_relevant_state(state: Any) -> Any:
    """A tokenizer's state without what no id depends on: offsets, and "" for an absent prefix or suffix."""
    if isinstance(state, dict):
        return {
            name: None if value == "" else _id_relevant_state(value)
            for name, value in state.items()
            if name != "trim_offsets"
        }
    return [_id_relevant_state(value) for value in state] if isinstance(state, list) else state


def _read_tokenizer_file(folder: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more telling
        raise ModelError(
            f"{folder / 'tokenizer.json'}: is no tokenizer ({one_line(str(error), 200)})"
        ) from error


def _chat_template(full: Any) -> str | None:
    found = getattr(full, "chat_template", None)
    return found if isinstance(found, str) else None


def _tokenizer_digest(folder: Path) -> str:
    """sha256 (16 hex digits) of the files that make a tokenizer, and of the versions that read them."""
    state = hashlib.sha256(repr([package_version(name) for name in ("transformers", "tokenizers")]).encode())
    for name in _FILES:
        path = folder / name
        if path.is_file():
            state.update(f"{name}\x1f".encode() + path.read_bytes())
    return state.hexdigest()[:16]
