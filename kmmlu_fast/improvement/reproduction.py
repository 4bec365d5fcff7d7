"""The commands that make a search's winner again, without the search, and ask it.

In: an ``ImproveConfig`` and a ``SearchResult``. Out: lines of text. Knows nothing of files.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import engine_settings
from kmmlu_fast.improvement.search import SearchResult


def reproduce_lines(config: ImproveConfig, result: SearchResult) -> list[str]:
    """The commands that train the winner alone (the same adapter, for a pause changes nothing) and ask it."""
    settings: Mapping[str, Any] = {
        "data": str(result.rows),
        "output_dir": "out/lora",
        "model": config.model,
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code or None,
        "dataset": config.dataset,
        "dataset_revision": config.dataset_revision,
        "held_out": 0,
        "keep": "last",
        "seed": config.seed,
        **result.winner.train_settings,
    }
    where = next(iter(result.adapters.values()))
    style, examples = result.winner.protocol
    asked = {
        **engine_settings(config),
        "adapter": str(where),
        "prompt_style": style,
        "num_fewshot": examples,
    }
    return [
        f"The winner's adapter: {where}",
        f"The winner alone: {_command('train', settings)}",
        f"Asked on all of test: {_command('eval', asked)}",
    ]


def _command(verb: str, settings: Mapping[str, Any]) -> str:
    """Without what is None: no flag says it, and it is the default of all that may be."""
    words = ["python", "-m", f"kmmlu_fast.{verb}"]
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}", ",".join(map(str, value))]
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)
