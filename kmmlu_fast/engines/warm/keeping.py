"""Starts an engine and keeps it warm: what ``kmmlu-fast serve-engine`` does.

In: a ``WarmEngineConfig``. Out: why it ended. Knows nothing of questions.
"""

from __future__ import annotations

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError, KmmluError
from kmmlu_fast.engines import factory
from kmmlu_fast.engines.compute_type import resolve_compute_type
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.protocol import ReusableEngine
from kmmlu_fast.engines.warm.address import can_check_peers, make_socket_folder
from kmmlu_fast.engines.warm.config import DEFAULT_CONTEXT_TOKENS, WarmEngineConfig
from kmmlu_fast.engines.warm.identity import identify_engine
from kmmlu_fast.engines.warm.worker import WarmWorker
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.models.changes import has_model_changed
from kmmlu_fast.models.model import resolve_model


def keep_engine_warm(config: WarmEngineConfig) -> str:
    """Start the engine and serve the user's commands until it is idle for too long or told to stop; why it
    ended. ConfigError if it is kept warm already, or cannot be.
    """
    if not can_check_peers():
        raise ConfigError(
            "serve-engine needs Unix sockets that tell who is at the other end, which this system lacks"
        )
    require_modules("serve-engine", "transformers", *find_engine_kind(config.engine).requires(config))
    folder = make_socket_folder()
    model = resolve_model(config.model, config.revision, config.trust_remote_code)
    config, note = resolve_compute_type(config, model)
    length = config.max_model_len or min(DEFAULT_CONTEXT_TOKENS, model.context_tokens)
    identity = identify_engine(config, model, [], length)
    if identity is None:
        raise ConfigError(
            "this engine is not kept warm: it needs one vLLM in one process (--data-parallel-size 1) and real"
            " weights"
        )
    if note:
        log_note(f"note: {note}")
    worker = WarmWorker(identity, folder, 60 * config.idle_minutes)

    def open_engine() -> ReusableEngine:
        log_note(f"engine: starting {config.engine} for {model.name}, up to {length} tokens")
        engine = factory.open_engine(config, model, [], length)
        assert isinstance(engine, ReusableEngine)
        return engine

    def find_change() -> str:
        try:
            return "the model's files have changed" if has_model_changed(model) else ""
        except KmmluError as error:
            return f"the model cannot be read any more: {error}"

    try:
        return worker.serve_commands(open_engine, find_change)
    finally:
        worker.close()
