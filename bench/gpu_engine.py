"""The vLLM engine of the parts of ``bench.gpu``: each part's own, or one that parts in one process share.

In: settings. Out: an engine. Without a card an engine's start is most of a part, so ``share_engine`` keeps
the last one open: for longer prompts, and for text, than the first part asks for. Knows nothing of parts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.gpu_commands import is_in_place
from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine
from kmmlu_fast.engines.vllm.start import start_vllm

_LONGEST = 2048  # tokens that a shared engine takes, at least
_kept: SharedEngine | None = None


class SharedEngine:
    """A ``VllmEngine`` that stays open when a part closes it."""

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def close(self) -> None:
        pass


def open_engine(settings: EngineSettings) -> VllmEngine | SharedEngine:
    """An engine of one's own, or the shared one in a process that runs several parts."""
    return share_engine(settings) if is_in_place() else start_vllm(settings)


def share_engine(settings: EngineSettings) -> SharedEngine:
    """The engine of the part before if it can answer this part too, else a new one in its place."""
    global _kept
    real = any(Path(settings.model).glob("*.safetensors"))
    wanted = replace(
        settings,
        load_format="auto" if real else "dummy",
        generates=True,
        max_model_len=max(settings.max_model_len, _LONGEST),
    )
    if _kept is None or not _answers(_kept.engine.settings, wanted):
        close_shared_engine()
        _kept = SharedEngine(start_vllm(wanted))
    return _kept


def close_shared_engine() -> None:
    """Before another engine starts in this process."""
    global _kept
    if _kept is not None:
        _kept.engine.close()
        _kept = None


def _answers(one: EngineSettings, wanted: EngineSettings) -> bool:
    """Whether an engine with the settings of ``one`` gives what is wanted."""
    same = ("model", "load_format", "max_lora_rank", "quantization")
    alike = all(getattr(one, name) == getattr(wanted, name) for name in same)
    return alike and one.max_model_len >= wanted.max_model_len
