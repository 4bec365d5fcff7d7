"""What stands beside a model's or an adapter's weights about conversations: chat template and stop tokens.

In: directories as transformers, TRL and ``train`` write them. Out: the template's text, the template's
variables, token ids at which generation stops. ModelError or AdapterError for files that cannot be read.
Knows nothing of prompts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError, ModelError
from kmmlu_fast.core.reading import Raised, read_json, read_text
from kmmlu_fast.models.model import Model

CHAT_TEMPLATE = "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"
CHAT_FILES = (CHAT_TEMPLATE, GENERATION_CONFIG, "tokenizer_config.json")  # of an adapter, as read here


def read_saved_template(folder: Path) -> str | None:
    """The chat template saved in an adapter's directory; None if there is none."""
    path = folder / CHAT_TEMPLATE
    if path.is_file():
        return read_text(path, AdapterError) or None
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    template = read_json(config, AdapterError, large_integers=True).get("chat_template")
    return template if isinstance(template, str) and template else None


def read_saved_stop_ids(folder: Path) -> tuple[int, ...]:
    """The stop ids in a directory's generation_config.json; () if it has none."""
    return _eos_ids(folder / GENERATION_CONFIG, AdapterError)


def find_stop_ids(model: Model, tokenizer: Any) -> tuple[int, ...]:
    """Every token id at which this model stops: the tokenizer's end token, and those of
    generation_config.json and config.json.
    """
    folder = model.folder()
    path = folder / GENERATION_CONFIG
    if not path.is_file() and not Path(model.path).is_dir():
        from huggingface_hub import hf_hub_download

        with contextlib.suppress(Exception):  # many models have none
            path = Path(hf_hub_download(model.path, GENERATION_CONFIG, revision=model.revision))
    found = [*_eos_ids(path, ModelError), *_as_ids(model.config().get("eos_token_id"))]
    if tokenizer.eos_token_id is not None:
        found.insert(0, int(tokenizer.eos_token_id))
    return tuple(dict.fromkeys(found))


def _eos_ids(path: Path, raised: Raised) -> tuple[int, ...]:
    return _as_ids(read_json(path, raised).get("eos_token_id")) if path.is_file() else ()


def _as_ids(value: Any) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [value]
    return tuple(item for item in ids if type(item) is int and item >= 0)


def trained_template_kwargs(card: Mapping[str, Any]) -> list[str]:
    """``--chat-template-kwargs`` of an adapter's training, from its card."""
    settings = card.get("hyperparameters")
    texts = settings.get("chat_template_kwargs") if isinstance(settings, dict) else None
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


def describe_tokens(tokenizer: Any, ids: Iterable[int]) -> str:
    """Token ids with what they stand for: ``<|im_end|> (4)``."""
    return ", ".join(f"{tokenizer.convert_ids_to_tokens(token)} ({token})" for token in ids)
