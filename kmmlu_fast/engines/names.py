"""The engines: a name, and the module that says what it is. Adding an engine: its folder, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

ENGINES = {
    "vllm": "kmmlu_fast.engines.vllm.kind",
    "ray": "kmmlu_fast.engines.ray.kind",
    "server": "kmmlu_fast.engines.server.kind",
    "transformers": "kmmlu_fast.engines.hf.kind",
    "llama-cpp": "kmmlu_fast.engines.llama_cpp.kind",
}

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[tuple(ENGINES)]
