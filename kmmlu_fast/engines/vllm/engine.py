"""vLLM in process, as an Engine.

In: Requests of token ids. Out: Responses as they finish; the engine's queue is refilled at every step, so it
never drains. Knows nothing of KMMLU. Sources: vLLM 0.32 ``LLMEngine.add_request``/``step``.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.core.schema import Adapter, Continuation, Generation, Request, Response
from kmmlu_fast.engines.counters import Counters
from kmmlu_fast.engines.protocol import FollowUp
from kmmlu_fast.engines.vllm.card_kernels import gpu_environment
from kmmlu_fast.engines.vllm.device_arguments import EngineSettings as EngineSettings
from kmmlu_fast.engines.vllm.device_arguments import (
    cpu_arguments,
    describe_gpu_arguments,
    describe_known_memory,
    gpu_arguments,
)
from kmmlu_fast.engines.vllm.errors import NOT_STARTED, STOPPED, as_engine_error
from kmmlu_fast.engines.vllm.late_tokenizer import attach_tokenizer
from kmmlu_fast.engines.vllm.llm_arguments import llm_arguments
from kmmlu_fast.engines.vllm.request_mapping import (
    count_generation_tokens,
    given_ids_params,
    parse_request_output,
    sampling_params,
)
from kmmlu_fast.engines.vllm.weight_swap import WeightSwapper
from kmmlu_fast.machine.device import check_toolchain, prepare_cuda, weakest_gpu
from kmmlu_fast.machine.heavy_imports import pause_garbage_collection
from kmmlu_fast.machine.memory_fit import first_start_note
from kmmlu_fast.models.changes import check_adapter_unchanged


def prepare_environment(gpu: bool, model: str = "") -> None:
    """Set what vLLM reads at import: quiet, on a CPU in one process (which starts five times as fast), on a
    card without kernels that are compiled at the start, and with time to read the ``model``'s weights.
    """
    prepare_cuda()
    for name, value in gpu_environment(model).items() if gpu else ():
        os.environ.setdefault(name, value)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    if not gpu:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


class VllmEngine:
    """One vLLM engine in this process for a base model and its adapters."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the model. EngineError, with the flags that help, if memory runs out or the model cannot be
        served.
        """
        began = time.monotonic()
        gpu = weakest_gpu(settings.tensor_parallel_size)
        prepare_environment(gpu is not None, settings.model)
        chosen = gpu_arguments(settings, gpu) if gpu else cpu_arguments(settings)
        if gpu:
            check_toolchain()
            log_note(f"engine: {describe_gpu_arguments(chosen, gpu)}")
            if note := first_start_note(gpu.capability, gpu.name):
                log_note(f"engine: {note}")
        from vllm import LLM

        self.settings = settings
        self._memory = describe_known_memory(settings, gpu)
        arguments = llm_arguments(settings, chosen, on_gpu=gpu is not None)
        self._has_tokenizer = not arguments["skip_tokenizer_init"]
        self._one_adapter_per_batch = gpu is None and bool(settings.max_lora_rank)
        self._weights = WeightSwapper(self._write_adapter, self._reset_prefix_cache)
        self._max_in_flight = 2 * int(arguments["max_num_seqs"])
        self._count = 0
        self._running_texts = (0, 0)
        self._lora_ids: dict[str, int] = {}
        self._counters = Counters()
        try:
            self._llm: Any = LLM(**arguments)
        except Exception as error:
            raise as_engine_error(error, NOT_STARTED, self._memory) from error
        self._engine = self._llm.llm_engine
        self._scores_given_ids = bool(getattr(self._engine.vllm_config, "use_v2_model_runner", False))
        cache_config = self._engine.vllm_config.cache_config
        self._cache_tokens = int(getattr(cache_config, "kv_cache_size_tokens", None) or 0)
        self.start_sec = time.monotonic() - began

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:  # noqa: C901 - one loop that keeps the engine full
        self._weights.check_usable()
        source = iter(requests)
        exhausted = False
        postponed: Request | None = None  # conflicts with the running requests
        active: dict[str, Request] = {}
        self._running_texts = (0, 0)
        try:
            while True:
                while not exhausted and len(active) < self._max_in_flight and self._cache_has_room():
                    request = postponed or next(source, None)
                    postponed = None
                    if request is None:
                        exhausted = True
                    elif self._conflicts_with_running(request, active):
                        postponed = request
                        break
                    else:
                        self._submit_request(request, active)
                if not active:
                    return
                finished = []
                for output in self._engine.step():
                    if output.finished:
                        request = active.pop(output.request_id)
                        self._track_generation_tokens(request, -1)
                        response = self._make_response(request, output)
                        more = follow_up(response) if follow_up else []
                        for request in more:
                            self._submit_request(request, active)
                        finished.append(replace(response, followed_by=len(more)))
                yield from finished
        except KmmluError:  # also from the source of requests
            raise
        except Exception as error:
            raise as_engine_error(error, STOPPED, self._memory) from error
        finally:
            # After an error, or if the caller stopped iterating: leave nothing running.
            if active and self._engine is not None:
                with contextlib.suppress(Exception):
                    self._engine.abort_request(list(active))

    def _conflicts_with_running(self, request: Request, active: dict[str, Request]) -> bool:
        """Whether ``request`` must wait until the running requests, with another adapter, are done.

        On a CPU vLLM's LoRA kernels (``torch_ops.bgmv_expand``, 0.32) use -1, the index of "no adapter", as
        that of the last slot: in a batch with an adapter's requests, the base would answer with that adapter.
        """
        if not self._one_adapter_per_batch or not active:
            return False
        running = next(iter(active.values())).adapter
        return (running and running.name) != (request.adapter and request.adapter.name)

    def swap(self, adapter: Adapter | None) -> None:
        """Answer requests without an adapter with this one from now on (None: with the base). EngineError
        while requests run.
        """
        if self._engine.has_unfinished_requests():
            raise EngineError("weights can be swapped between passes, not while requests run")
        self._weights.swap_to(adapter)

    def start_afresh(self) -> None:
        """Hold the base's weights, and nothing of earlier requests: what is in the cache, and what was
        counted about it, decides which requests share a step. EngineError if that fails.
        """
        self.swap(None)
        self._weights.check_usable()
        self._reset_prefix_cache()
        self._counters = Counters()

    def _write_adapter(self, adapter: Adapter | None) -> None:
        """AdapterError if the files are no longer those of the adapter's digest."""
        self._llm.collective_rpc("write_adapter", args=(str(adapter.path) if adapter else None,))
        if adapter is not None:
            check_adapter_unchanged(adapter)  # after they were read: what was written before counts

    def _reset_prefix_cache(self) -> None:
        if not self._engine.reset_prefix_cache():
            raise EngineError("the prefix cache could not be cleared")

    def _track_generation_tokens(self, request: Request, sign: int) -> None:
        """Update ``_running_texts``, the prompt and output tokens of all running texts."""
        prompt, output = count_generation_tokens(request)
        prompts, outputs = self._running_texts
        self._running_texts = (prompts + sign * prompt, outputs + sign * output)

    def _cache_has_room(self) -> bool:
        """Whether the key-value cache holds all running texts at full length; otherwise vLLM would drop some
        and recompute them.
        """
        prompts, outputs = self._running_texts
        if outputs == 0 or not self._cache_tokens:
            return True
        counters = self._counters
        unshared = 1 - counters.cached_tokens / max(1, counters.prompt_tokens)
        return unshared * prompts + outputs < self._cache_tokens

    def _submit_request(self, request: Request, active: dict[str, Request]) -> None:
        from vllm.lora.request import LoRARequest

        self._count += 1
        request_id = str(self._count)
        adapter = request.adapter
        lora = None
        if adapter and self.settings.max_lora_rank:
            # vLLM distinguishes adapters by name and caches them by id: both must depend on the weights.
            lora_id = self._lora_ids.setdefault(adapter.digest, len(self._lora_ids) + 1)
            lora = LoRARequest(f"{adapter.name}-{adapter.digest}", lora_id, str(adapter.path))
        if not self._has_tokenizer and isinstance(request.want, Generation):
            attach_tokenizer(self._engine)
            self._has_tokenizer = True
        prompt = {"prompt_token_ids": list(request.token_ids)}
        active[request_id] = request
        self._track_generation_tokens(request, 1)
        params = sampling_params(request.want)
        if self._scores_given_ids and isinstance(request.want, Continuation):
            params = given_ids_params(request.token_ids, request.want.num_tokens)
        self._engine.add_request(request_id, prompt, params, lora_request=lora)

    def _make_response(self, request: Request, output: Any) -> Response:
        response = parse_request_output(request, output)
        self._counters.add(response)
        return response

    def stats(self) -> dict[str, Any]:
        import vllm

        return {
            "engine": "vllm",
            "vllm": vllm.__version__,
            "start_sec": round(self.start_sec, 2),
            **self._counters.stats(),
        }

    def close(self) -> None:
        if self._llm is None:
            return
        with pause_garbage_collection():  # collect once, at the end
            with contextlib.suppress(Exception):
                self._engine.engine_core.shutdown()
            self._llm = self._engine = None
            with contextlib.suppress(Exception):
                from vllm.distributed import cleanup_dist_env_and_memory

                cleanup_dist_env_and_memory()
        gc.collect()
