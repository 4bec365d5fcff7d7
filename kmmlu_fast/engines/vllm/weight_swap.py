"""Adapters written into a running engine: one engine for the base and every adapter, at the base's own speed.

In: the adapter whose weights the engine shall hold next (None = the base's). Out: an engine that holds
exactly these, or one that refuses to answer. ``SwapWorker`` runs within vLLM's worker
(``worker_extension_cls``): it reads the base's weights of the changed layers from the model's own files, adds
the adapter's, and hands them to vLLM's ``reload_weights``, which shards, fuses and packs them as at the
start. No copy of the model is kept or written; the base comes back from its files, bit for bit. Knows nothing
of questions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.core.schema import Adapter

WORKER = "kmmlu_fast.engines.vllm.weight_swap.SwapWorker"


class WeightSwapper:
    """Which weights an engine holds, and whether it may answer. ``load`` writes them, ``forget`` drops what
    was computed with others.

    The engine is out of use from the first byte written until all are, and the caches are empty: a fault in
    between leads to the base's weights being restored, and where that fails too, or the fault was an
    interrupt, ``require`` goes on refusing.
    """

    def __init__(self, load: Callable[[Adapter | None], None], forget: Callable[[], None]) -> None:
        self._load, self._forget = load, forget
        self.adapter: Adapter | None = None
        self.usable = True

    def swap_to(self, adapter: Adapter | None) -> None:
        """Hold the adapter's weights, or the base's. KmmluError where that failed; the engine
        then holds the base, or nothing usable.
        """
        if self.usable and _adapter_digest(adapter) == _adapter_digest(self.adapter):
            return
        try:
            self._write_weights(adapter)
        except Exception as error:
            name = adapter.name if adapter else "the base"
            if adapter is not None:
                with contextlib.suppress(Exception):
                    self._write_weights(None)
            if isinstance(error, KmmluError):
                raise
            raise EngineError(
                f"weights of {name} could not be written into the engine ({type(error).__name__}: {error})"
            ) from error

    def check_usable(self) -> None:
        """EngineError unless the engine holds one model state, whole."""
        if not self.usable:
            raise EngineError(
                "the engine was stopped while an adapter was being written into it, and holds half of it: it"
                " does not answer any more; the same command starts a new one and continues"
            )

    def _write_weights(self, adapter: Adapter | None) -> None:
        self.usable = False
        self._load(adapter)
        self._forget()
        self.adapter, self.usable = adapter, True


def _adapter_digest(adapter: Adapter | None) -> str | None:
    return adapter.digest if adapter else None


class SwapWorker:
    """Methods that vLLM adds to its worker. Called by name through ``collective_rpc``, in
    whatever process the worker lives.
    """

    model_runner: Any
    vllm_config: Any
    _written: set[str]  # modules whose weights may differ from the base's

    def write_adapter(self, folder: str | None) -> int:
        """Write the base's weights with the adapter's added into the running model; returns how many modules
        were written.

        All that earlier adapters changed is written too. KmmluError or vLLM's own error where it cannot go
        through: then the weights are neither the one nor the other, and have to be written again.
        """
        from vllm.model_executor.model_loader import get_model_loader
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        from kmmlu_fast.models.deltas import changed_weights, expand_packed_modules, read_lora_deltas

        changes = read_lora_deltas(Path(folder)) if folder else {}
        model, config = self.model_runner.get_model(), self.vllm_config.model_config
        before: set[str] = getattr(self, "_written", set())
        touched = before | expand_packed_modules(changes, getattr(model, "packed_modules_mapping", {}))
        if not touched:
            return 0
        self._written = touched  # before the first byte: a write that is cut must be undone
        loader = get_model_loader(self.vllm_config.load_config)
        if not hasattr(loader, "get_all_weights"):
            raise EngineError(
                "--adapter-mode swap needs a model read from files (--load-format auto); use serve"
            )
        weights = loader.get_all_weights(config, model)
        try:
            self.reload_weights(weights_iterator=changed_weights(weights, touched, changes, config.dtype))  # type: ignore[attr-defined]
        except BaseException:
            with contextlib.suppress(Exception):
                finalize_layerwise_reload(
                    model, config
                )  # vLLM would hand the weights it has buffered to the next writing
            raise
        if not folder:
            self._written = set()
        return len(touched)
