"""The papers of an export: its card (README.md) and the Modelfile for Ollama.

In: an export's record and source. Out: texts. Writes nothing.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.shipping.source import ShippingSource
from kmmlu_fast.shipping.stops import StopIds

_KMMLU = "KMMLU, if it was trained or measured on, is CC-BY-ND-4.0 (HAERAE-HUB/KMMLU)"


def modelfile(name: str, source: ShippingSource, stops: StopIds, *, is_lora: bool) -> str:
    """A Modelfile: ``ollama create NAME -f Modelfile``. Ollama takes the chat template from the GGUF file."""
    lines = [f"# {source.adapter.name} on {source.model.name}; made by kmmlu-fast export"]
    if is_lora:
        lines += ["# The base as GGUF, converted from the same revision:", "FROM ./base.gguf"]
        lines += [f"ADAPTER ./{name}"]
    else:
        lines.append(f"FROM ./{name}")
    lines += [f'PARAMETER stop "{text}"' for text in stops.texts if '"' not in text and "\n" not in text]
    lines.append("PARAMETER temperature 0")
    return "\n".join(lines) + "\n"


def export_card(record: dict[str, Any], source: ShippingSource) -> str:
    """README.md: the hub's metadata block, what it was made from, the files, the licences."""
    base, adapter = record["base"], record["adapter"]
    is_local = source.model.name == "demo" or "/" not in base["name"]
    head = ["---", *([] if is_local else [f"base_model: {base['name']}"]), "tags:", "- kmmlu-fast", "---", ""]
    data = source.card.get("data") or {}
    revision = f", revision {base['revision']}" if base["revision"] else ""
    lines = [
        f"# {adapter['name']} ({record['kind']})",
        "",
        f"- base: {base['name']}{revision}, weights {base['digest']}",
        f"- adapter: rank {adapter['rank']}, digest {adapter['digest']}",
    ]
    if data.get("file"):
        lines.append(f"- trained on {data.get('rows_trained', '?')} rows of {data['file']}")
    lines += [f"- stop tokens: {', '.join(record['stop_texts']) or 'none'}", "", "## Files", ""]
    lines += [
        f"- `{name}`: {facts['bytes']:,} bytes, sha256 `{facts['sha256'][:16]}`"
        for name, facts in record["files"].items()
    ]
    lines += ["", "## Licences", "", f"- model: {base['licence']}"]
    lines += ["- training data: as its own card says", f"- {_KMMLU}", ""]
    lines += ["Before you publish it, check that it is what you measured: `kmmlu-fast check`.", ""]
    return "\n".join([*head, *lines])
