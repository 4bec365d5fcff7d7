"""Seconds by stage inside a vLLM engine of this process: scheduling, model, LM head, sampling, bookkeeping.

In: vLLM's ``LLMEngine``. Out: ``seconds`` and ``calls`` by stage, filled while it runs. Stages are vLLM
0.32's own methods, wrapped; an engine core in another process (GPU) cannot be looked into, and then there are
none. Knows nothing of KMMLU.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any


class Stages:
    """Wraps the engine's methods; a stage inside another is subtracted from it."""

    def __init__(self, front: Any) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._open: list[float] = []  # seconds of inner stages, one entry an open stage
        self._follow(front.input_processor, "process_inputs", "take_requests")
        self._follow(front.output_processor, "process_outputs", "make_outputs")
        core = getattr(front.engine_core, "engine_core", None)
        if core is None:
            return
        self._follow(core.scheduler, "schedule", "schedule")
        self._follow(core.scheduler, "update_from_output", "schedule")
        self._follow(core.model_executor, "execute_model", "prepare_batch")
        self._follow(core.model_executor, "sample_tokens", "sample_other")
        runner = core.model_executor.driver_worker.worker.model_runner
        self._follow(runner, "_model_forward", "model")
        self._follow(runner.model, "compute_logits", "lm_head")
        self._follow(runner, "_sample", "sampler")

    def _follow(self, owner: Any, name: str, stage: str) -> None:
        inner: Callable[..., Any] | None = getattr(owner, name, None)
        if inner is None:
            return

        @functools.wraps(inner)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._open.append(0.0)
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.calls[stage] = self.calls.get(stage, 0) + 1
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._open.pop()
                if self._open:
                    self._open[-1] += spent

        setattr(owner, name, wrapped)

    def clear(self) -> None:
        """Start a new pass."""
        self.seconds.clear()
        self.calls.clear()
