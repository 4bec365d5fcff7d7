"""How a model's authors sample from it: the settings in its generation_config.json.

In: a ``Model``. Out: temperature, top-p, top-k and min-p, or None if it says nothing of sampling; ModelError
for a value that no engine takes. Knows nothing of prompts or engines.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.reading import read_json
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.models.chat_files import GENERATION_CONFIG
from kmmlu_fast.models.gguf import is_gguf_path
from kmmlu_fast.models.model import Model

_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """``left_out``: settings that the file has and no engine here is given."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """As flags would say it."""
        parts = [f"temperature {self.temperature:g}", f"top-p {self.top_p:g}"]
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"min-p {self.min_p:g}"] if self.min_p else []
        return ", ".join(parts)


def read_sampling_defaults(model: Model) -> SamplingDefaults | None:
    """The model's own settings; None if it has none, or decodes greedily."""
    path = find_generation_config(model)
    if path is None:
        return None
    settings = read_json(path, ModelError)
    if settings.get("do_sample") is False or not (settings.get("do_sample") or "temperature" in settings):
        return None

    def number(name: str, default: float, low: float, high: float) -> float:
        value = settings.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ModelError(
                f"{path}: {name} is {bounded_repr(value)}, not a number from {low:g} to {high:g}; give"
                " --temperature and --top-p"
            )
        return float(value)

    temperature = number("temperature", 1.0, 0.0, 100.0)
    if temperature == 0:
        return None
    return SamplingDefaults(
        temperature=temperature,
        top_p=number("top_p", 1.0, 1e-6, 1.0),
        top_k=max(0, int(number("top_k", 0, -1, 1e9))),
        min_p=number("min_p", 0.0, 0.0, 1.0),
        left_out=tuple(name for name in _PENALTIES if _is_set(settings.get(name))),
    )


def _is_set(penalty: Any) -> bool:
    return penalty not in (None, 0, 1, 0.0, 1.0)


def find_generation_config(model: Model) -> Path | None:
    """The model's generation_config.json; None if it has none."""
    if is_gguf_path(model.path):
        return None
    path = model.folder() / GENERATION_CONFIG
    if not path.is_file() and not Path(model.path).is_dir():
        from huggingface_hub import hf_hub_download

        with contextlib.suppress(Exception):  # many models have none
            path = Path(hf_hub_download(model.path, GENERATION_CONFIG, revision=model.revision))
    return path if path.is_file() else None
