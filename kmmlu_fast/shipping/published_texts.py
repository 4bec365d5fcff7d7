"""A directory's texts as they may be published: without paths of the machine that they were written on.

In: the files to publish, and the base's name on the hub if the user gave one. Out: the contents that change.
ConfigError if an adapter names its base by a path and nobody says what it is called on the hub, or if a path
remains. Knows nothing of hubs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import parse_json

# Where PEFT, transformers, and training's card write the base's place.
_BASE_KEYS = ("base_model_name_or_path", "_name_or_path", "name_or_path", "base_model", "path")
_TEXT_SUFFIXES = (".json", ".jsonl", ".md", ".yaml", ".yml", ".txt", ".csv", ".svg", "")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
_MOST_BYTES = 8 << 20
_PATH = re.compile(r"(?:/|~|\.{1,2}/|[A-Za-z]:[\\/])")


def publish_texts(folder: Path, files: Iterable[Path], base: str | None) -> dict[str, bytes]:
    """Name in the directory -> its new content, for the texts that name a path of this machine."""
    changed = {}
    recorded = _recorded_base(folder, base)
    for path in files:
        name = str(path.relative_to(folder))
        if path.suffix.lower() not in _TEXT_SUFFIXES or path.name in _VOCABULARIES:
            continue
        if path.stat().st_size > _MOST_BYTES:
            continue
        text = path.read_text("utf-8", "surrogateescape")
        cleaned = _without_paths(text, path, recorded, base)
        _refuse_paths(cleaned, name, folder)
        if cleaned != text:
            changed[name] = cleaned.encode("utf-8", "surrogateescape")
    return changed


def publish_card(text: str, folder: Path, base: str | None) -> bytes:
    """The card, in which the base's path, if the adapter names it by one, is its name on the hub."""
    recorded = _recorded_base(folder, base)
    if recorded and base:
        text = text.replace(recorded, base)
    _refuse_paths(text, "README.md", folder)
    return text.encode("utf-8", "replace")


def is_local_path(text: str) -> bool:
    """Whether a name is a place on this machine and not one on the hub."""
    return bool(_PATH.match(text)) or text.count("/") > 1 or Path(text).is_dir()


def _recorded_base(folder: Path, base: str | None) -> str | None:
    """The path by which the adapter names its base; None if it is not an adapter, or names it otherwise."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        return None
    document = parse_json(config.read_text("utf-8", "replace"), str(config), ConfigError)
    name = document.get("base_model_name_or_path") if isinstance(document, dict) else None
    if not isinstance(name, str) or not is_local_path(name):
        return None
    if base is None:
        raise ConfigError(
            f"{config}: names the base by a place on this machine ({name}), where nobody else finds it; give"
            " its name on the hub with --base ORG/NAME, or publish the merged model: kmmlu-fast export"
        )
    return name


def _without_paths(text: str, path: Path, recorded: str | None, base: str | None) -> str:
    if path.suffix.lower() == ".json":
        try:
            document = parse_json(text, str(path), ConfigError)
        except ConfigError:  # published as it is, if no path stands in it
            return text
        cleaned = _clean_value(document, base)
        if cleaned != document:
            text = json.dumps(cleaned, ensure_ascii=False, indent=2) + "\n"
    return text.replace(recorded, base) if recorded and base else text


def _clean_value(value: Any, base: str | None, key: str = "") -> Any:
    """The value with the base's name for its path, and file names for other absolute paths."""
    if isinstance(value, dict):
        return {name: _clean_value(item, base, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean_value(item, base, key) for item in value]
    if not isinstance(value, str) or not Path(value).is_absolute() or not Path(value).exists():
        return value
    if key in _BASE_KEYS and base and Path(value).is_dir():
        return base
    return Path(value).name


def _refuse_paths(text: str, name: str, folder: Path) -> None:
    for place in _own_places(folder):
        if place in text:
            raise ConfigError(
                f"{name}: names a place on this machine ({place}); take it out, or leave the file out of"
                " the directory"
            )


def _own_places(folder: Path) -> Iterator[str]:
    yield str(folder.resolve())
    home = Path.home()
    if len(home.parts) > 1:
        yield f"{home}/"
