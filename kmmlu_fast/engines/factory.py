"""Opens the engine that a config names.

In: the engine part of a config, a model, adapters. Out: an ``Engine``. Knows nothing of questions.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.models.model import Model


def open_engine(
    config: EngineOptions,
    model: Model,
    adapters: Sequence[Adapter],
    max_model_len: int,
    path: str | None = None,
    *,
    is_users_choice: bool = True,
) -> Engine:
    """Start the engine of ``config.engine`` for a model and its adapters; EngineError if it cannot start.

    ``path`` replaces the weights (a merged copy), not the tokenizer. ``is_users_choice``: whether a flag
    chose the engine, so that a better one can be advised.
    """
    kind = find_engine_kind(config.engine)
    if is_users_choice and (advice := kind.advice()):
        log_note(advice)
    return kind.open(config, model, adapters, max_model_len, path)
