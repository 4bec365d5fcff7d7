"""Writes adapters into a running engine: one engine for the base and every adapter, at the base's speed.

In: the adapter whose weights the engine should hold next (None = the base's). Out: an engine that holds
exactly these, or one that refuses to answer. ``SwapWorker`` runs in vLLM's worker (``worker_extension_cls``):
it reads the base's weights of the changed layers from the model's files, adds the adapter's, and passes them
to vLLM's ``reload_weights``, which shards, fuses and packs them as at the start. No copy of the model is kept
or written; the base is restored from its files, bit for bit. Knows nothing of questions.
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
    """Which weights an engine holds, and whether it may answer. ``load`` writes weights, ``forget`` drops
    what was computed with the previous ones.

    The engine is unusable from the first byte written until the last, and until its caches are empty. A fault
    in between restores the base's weights. If that fails too, or the fault is an interrupt, ``check_usable``
    raises from then on.
    """

    def __init__(self, load: Callable[[Adapter | None], None], forget: Callable[[], None]) -> None:
        self._load, self._forget = load, forget
        self.adapter: Adapter | None = None
        self.usable = True

    def swap_to(self, adapter: Adapter | None) -> None:
        """Write the adapter's weights, or the base's. KmmluError on failure: the engine then holds the base,
        or nothing usable.
        """
        if self.usable and _adapter_digest(adapter) == _adapter_digest(self.adapter):
            return
        try:
            self._write_weights(adapter)
        except Exception as error:
            if adapter is not None:
                with contextlib.suppress(Exception):
                    self._write_weights(None)
            if isinstance(error, KmmluError):
                raise
            name = adapter.name if adapter else "the base"
            raise EngineError(
                f"weights of {name} could not be written into the engine ({type(error).__name__}: {error})"
            ) from error

    def check_usable(self) -> None:
        """EngineError unless the engine holds one complete model state."""
        if not self.usable:
            raise EngineError(
                "the engine was stopped while an adapter was being written, and holds only half of it;"
                " run the same command to start a new engine and continue"
            )

    def _write_weights(self, adapter: Adapter | None) -> None:
        self.usable = False
        self._load(adapter)
        self._forget()
        self.adapter, self.usable = adapter, True


def _adapter_digest(adapter: Adapter | None) -> str | None:
    return adapter.digest if adapter else None


class SwapWorker:
    """Methods that vLLM adds to its worker; ``collective_rpc`` calls them by name in the worker's process."""

    model_runner: Any
    vllm_config: Any
    _written: set[str]  # modules whose weights may differ from the base's

    def write_adapter(self, folder: str | None) -> int:
        """Write the base's weights plus the adapter's into the running model; return the number of modules.

        Modules that earlier adapters changed are written too. KmmluError or vLLM's own error on failure: the
        weights are then undefined and must be written again.
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
        self._written = touched  # before the first byte: an interrupted write must be undone
        loader = get_model_loader(self.vllm_config.load_config)
        if not hasattr(loader, "get_all_weights"):
            raise EngineError(
                "--adapter-mode swap needs a model read from files (--load-format auto); use serve"
            )
        stored = loader.get_all_weights(config, model)
        weights = changed_weights(stored, touched, changes, config.dtype, getattr(self, "device", "cpu"))
        try:
            self.reload_weights(weights_iterator=weights)  # type: ignore[attr-defined]
        except BaseException:
            # Otherwise vLLM would pass the weights it has buffered to the next write.
            with contextlib.suppress(Exception):
                finalize_layerwise_reload(model, config)
            raise
        if not folder:
            self._written = set()
        return len(touched)
