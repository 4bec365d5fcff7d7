"""vLLM's own tokenizer, loaded for the first generation request instead of at the start.

In: a running ``LLMEngine`` that was started with ``skip_tokenizer_init``. Out: the same engine, which now
detokenises, finds stop strings and knows the end of text. Most evaluations never need it: prompts go in as
token ids, letters come out as log-probabilities. With a vocabulary of 262,144, vLLM spends two thirds of its
start on loading, copying and warming tokenizers. Source: vLLM 0.32 ``LLMEngine.__init__``, ``InputProcessor``
and ``OutputProcessor``, which read these two attributes at each request.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.reading import read_json


def can_defer_tokenizer(model: str, revision: str | None = None) -> bool:
    """Whether vLLM can start this model without a tokenizer. Models that also take images or audio cannot:
    they build their processors from it.
    """
    folder = Path(model) if Path(model).is_dir() else _cached_snapshot(model, revision)
    try:
        config = read_json(folder / "config.json", EngineError) if folder else {}
    except EngineError:
        return False
    if not config:
        return False
    return not any(
        name.endswith("_config") and name != "quantization_config"
        for name, part in config.items()
        if isinstance(part, dict)
    )


def attach_tokenizer(engine: Any) -> None:
    """Load the tokenizer as vLLM does at the start."""
    from vllm.tokenizers.registry import cached_tokenizer_from_config

    config = engine.model_config
    config.skip_tokenizer_init = False
    tokenizer = cached_tokenizer_from_config(config)
    engine.renderer.tokenizer = tokenizer
    engine.output_processor.tokenizer = tokenizer


def _cached_snapshot(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        config_path = try_to_load_from_cache(model, "config.json", revision=revision)
    except ValueError:  # not a hub id
        return None
    return Path(config_path).parent if isinstance(config_path, str) else None
