"""What ends a text: stop ids and chat template, as they were measured, written beside the weights.

In: a ``ShippingSource``. Out: the stop ids with their texts, and the tokenizer, template and
``generation_config.json`` of a merged directory. Knows nothing of formats.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.core.reading import read_json
from kmmlu_fast.models.chat_files import CHAT_TEMPLATE as TEMPLATE
from kmmlu_fast.models.chat_files import GENERATION_CONFIG as GENERATION
from kmmlu_fast.models.chat_files import find_stop_ids, read_saved_stop_ids, read_saved_template
from kmmlu_fast.models.model import load_tokenizer
from kmmlu_fast.shipping.source import ShippingSource

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    TEMPLATE,
    "chat_template.json",
)
_PROBE = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "kmmlu-probe"}]


@dataclass(frozen=True, slots=True)
class StopIds:
    """Tokens that end a text, and how they are written."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


def read_stop_ids(source: ShippingSource) -> StopIds:
    """The stop ids of base and adapter: their generation configs', the tokenizer's, and the token with which
    the chat template ends an assistant's turn."""
    tokenizer = reference_tokenizer(source)
    ids = [*read_saved_stop_ids(source.adapter.path), *find_stop_ids(source.model, tokenizer)]
    ids += turn_end_ids(tokenizer)
    kept = tuple(dict.fromkeys(ids))
    return StopIds(kept, tuple(tokenizer.convert_ids_to_tokens(list(kept))))


def reference_tokenizer(source: ShippingSource) -> Any:
    """The base's tokenizer with the adapter's own chat template, if it has one, as evaluation takes it."""
    tokenizer = load_tokenizer(source.model)
    template = read_saved_template(source.adapter.path)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def eos_ids(settings: dict[str, Any]) -> list[int]:
    """``eos_token_id`` as a list."""
    value = settings.get("eos_token_id")
    listed = value if isinstance(value, list) else [value]
    return [item for item in listed if isinstance(item, int)]


def turn_end_ids(tokenizer: Any) -> list[int]:
    """The special or added token that follows an assistant's text in the chat template; [] if none does."""
    if not getattr(tokenizer, "chat_template", None):
        return []
    try:
        text = tokenizer.apply_chat_template(_PROBE, tokenize=False, add_generation_prompt=False)
    except Exception:  # a template that refuses these turns says nothing about their end
        return []
    rest = text.rpartition(_PROBE[1]["content"])[2].strip()
    added = sorted(tokenizer.get_added_vocab().items(), key=lambda item: -len(item[0]))
    return next(([number] for mark, number in added if mark and rest.startswith(mark)), [])


def write_serving_files(folder: Path, source: ShippingSource, stops: StopIds) -> None:
    """The base's tokenizer files as they are, the adapter's chat template if it has its own, and the
    generation config with all stop ids.

    Copied, not saved again: a converter may read ``tokenizer.model``, which transformers no longer writes.
    """
    base = source.model.folder()
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    template = read_saved_template(source.adapter.path)
    if template is not None:
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
    settings = _read_settings(folder / GENERATION)
    if stops.ids:
        settings["eos_token_id"] = list(stops.ids) if len(stops.ids) > 1 else stops.ids[0]
    write_json_atomically(folder / GENERATION, settings)


def _read_settings(path: Path) -> dict[str, Any]:
    return read_json(path, ModelError) if path.is_file() else {}
