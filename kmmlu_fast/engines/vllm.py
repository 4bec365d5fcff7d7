"""vLLM in process, as an Engine.

In: Requests of token ids. Out: Responses as they finish; the engine's queue is topped up at every step, so it never drains between
chunks. Knows nothing of KMMLU. Sources: vLLM 0.32 ``LLMEngine.add_request``/``step``, ``SamplingParams.logprob_token_ids``.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.core.environment import has_gpu
from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.core.schema import Adapter, Completion, Request, Response
from kmmlu_fast.engines.cpu_kernels import joined_norms
from kmmlu_fast.engines.protocol import FollowUp
from kmmlu_fast.engines.swap import WORKER, HeldWeights

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values vLLM accepts for max_lora_rank
_CPU_SEQS, _CPU_TOKENS = 64, 2048
_GPU_SEQS, _GPU_TOKENS = 1024, 16384
_OUT_OF_MEMORY = ("out of memory", "No available memory", "KV cache", "Free memory on device")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Everything an engine is opened with; picklable. ``None`` = chosen here for throughput by device."""

    model: str
    revision: str | None = None
    tokenizer: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    max_model_len: int = 4096
    gpu_memory_utilization: float = 0.90
    tensor_parallel_size: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    load_format: str = "auto"
    seed: int = 42
    max_lora_rank: int = 0  # 0 = no adapters
    num_adapters: int = 0
    extra: tuple[tuple[str, Any], ...] = ()  # further vLLM engine arguments, as items


def _prepare_environment(gpu: bool) -> None:
    """Settings vLLM reads at import: quiet, and on CPU in one process (starting takes a fifth of the time there)."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    if not gpu:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


class VllmEngine:
    """One vLLM engine in this process for a base model and its adapters."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the model. EngineError with the flags that help where memory is short or the model cannot be served."""
        began = time.monotonic()
        gpu = has_gpu()
        _prepare_environment(gpu)
        from vllm import LLM

        self.settings = settings
        max_num_seqs = settings.max_num_seqs or (_GPU_SEQS if gpu else _CPU_SEQS)
        tokens = settings.max_num_batched_tokens or (_GPU_TOKENS if gpu else _CPU_TOKENS)
        arguments: dict[str, Any] = {
            "model": settings.model,
            "revision": settings.revision,
            "tokenizer": settings.tokenizer or settings.model,
            "dtype": settings.dtype,
            "quantization": settings.quantization,
            "max_model_len": settings.max_model_len,
            "tensor_parallel_size": settings.tensor_parallel_size,
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max(tokens, max_num_seqs),
            "load_format": settings.load_format,
            "seed": settings.seed,
            "enable_prefix_caching": True,
            "prefix_cache_retention_interval": None,  # sliding windows (Gemma): found again by the second request, not the third
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "generation_config": "vllm",  # the model's own sampling defaults must not decide a benchmark
        }
        if gpu:
            arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
        else:
            # vLLM's own block on CPU is 128 tokens, and a prefix is found again in whole blocks only: five-shot, a tenth of the pass.
            arguments |= {"enforce_eager": True, "block_size": 32, **joined_norms()}
        if settings.max_lora_rank:
            rank = next((r for r in _RANKS if r >= settings.max_lora_rank), None)
            if rank is None:
                raise EngineError(f"adapter rank {settings.max_lora_rank} is over vLLM's {_RANKS[-1]}; use --adapter-mode merge")
            arguments |= {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1, "max_cpu_loras": max(1, settings.num_adapters)}
        arguments |= {"worker_extension_cls": WORKER, **dict(settings.extra)}
        self._weights = HeldWeights(self._write_adapter, self._forget)
        self._max_in_flight = 2 * max_num_seqs
        self._count = 0
        self._lora_ids: dict[str, int] = {}
        self._counters = {"requests": 0, "prompt_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
        try:
            self._llm: Any = LLM(**arguments)
        except Exception as error:
            raise _as_engine_error(error, "the engine did not start") from error
        self._engine = self._llm.llm_engine
        self.start_sec = time.monotonic() - began

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        self._weights.require()
        source = iter(requests)
        exhausted = False
        active: dict[str, Request] = {}
        try:
            while True:
                while not exhausted and len(active) < self._max_in_flight:
                    request = next(source, None)
                    if request is None:
                        exhausted = True
                    else:
                        self._add(request, active)
                if not active:
                    return
                finished = []
                for output in self._engine.step():
                    if output.finished:
                        response = self._response(active.pop(output.request_id), output)
                        more = follow_up(response) if follow_up else []
                        for request in more:
                            self._add(request, active)
                        finished.append(replace(response, followed_by=len(more)))
                yield from finished
        except KmmluError:  # also of the requests' source
            raise
        except Exception as error:
            raise _as_engine_error(error, "the engine stopped") from error
        finally:
            if active and self._engine is not None:  # the caller went away, or an error: leave nothing running behind
                with contextlib.suppress(Exception):
                    self._engine.abort_request(list(active))

    def swap(self, adapter: Adapter | None) -> None:
        """Hold the adapter's weights from now on (None: the base's), for requests without ``adapter``. EngineError while requests run."""
        if self._engine.has_unfinished_requests():
            raise EngineError("weights are swapped between passes, not while requests run")
        self._weights.become(adapter)

    def _write_adapter(self, adapter: Adapter | None) -> None:
        self._llm.collective_rpc("write_adapter", args=(str(adapter.path) if adapter else None,))

    def _forget(self) -> None:
        if not self._engine.reset_prefix_cache():
            raise EngineError("the prefix cache could not be emptied after a swap")

    def _add(self, request: Request, active: dict[str, Request]) -> None:
        from vllm.lora.request import LoRARequest

        self._count += 1
        request_id = str(self._count)
        adapter = request.adapter
        lora = None
        if adapter and self.settings.max_lora_rank:
            # vLLM tells adapters apart by name and caches them by id: both must follow the weights, whatever the caller numbered.
            lora_id = self._lora_ids.setdefault(adapter.digest, len(self._lora_ids) + 1)
            lora = LoRARequest(f"{adapter.name}-{adapter.digest}", lora_id, str(adapter.path))
        prompt = {"prompt_token_ids": list(request.token_ids)}
        active[request_id] = request
        self._engine.add_request(request_id, prompt, _sampling_params(request), lora_request=lora)

    def _response(self, request: Request, output: Any) -> Response:
        cached = output.num_cached_tokens or 0
        counters = self._counters
        counters["requests"] += 1
        counters["prompt_tokens"] += len(request.token_ids)
        counters["cached_tokens"] += cached
        if request.score_last:
            scored = list(zip(request.token_ids, output.prompt_logprobs, strict=True))[-request.score_last :]
            return Response(request, logprobs=(sum(entry[token].logprob for token, entry in scored),), cached_tokens=cached)
        if request.candidate_ids:
            entry = output.outputs[0].logprobs[0]
            counters["output_tokens"] += 1
            return Response(request, logprobs=tuple(entry[token].logprob for token in request.candidate_ids), cached_tokens=cached)
        completions = tuple(Completion(o.text, tuple(o.token_ids), o.finish_reason or "length") for o in output.outputs)
        counters["output_tokens"] += sum(len(c.token_ids) for c in completions)
        return Response(request, completions=completions, cached_tokens=cached)

    def stats(self) -> dict[str, Any]:
        import vllm

        hit = self._counters["cached_tokens"] / max(1, self._counters["prompt_tokens"])
        return {
            "engine": "vllm", "vllm": vllm.__version__, "start_sec": round(self.start_sec, 2),
            **self._counters, "prefix_cache_hit_rate": round(hit, 4),
        }  # fmt: skip

    def close(self) -> None:
        if self._llm is None:
            return
        with contextlib.suppress(Exception):
            self._engine.engine_core.shutdown()
        self._llm = self._engine = None
        gc.collect()
        with contextlib.suppress(Exception):
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()


def _sampling_params(request: Request) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    common: dict[str, Any] = {"output_kind": RequestOutputKind.FINAL_ONLY, "seed": request.seed}
    if request.score_last:
        return SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, **common)
    if request.candidate_ids:
        ids = list(request.candidate_ids)
        return SamplingParams(temperature=0.0, max_tokens=1, logprobs=len(ids), logprob_token_ids=ids, detokenize=False, **common)
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        n=request.num_samples,
        max_tokens=request.max_tokens,
        stop=list(request.stop) or None,
        include_stop_str_in_output=request.include_stop,
        **common,
    )


def _as_engine_error(error: Exception, what: str) -> EngineError:
    text = " ".join(str(error).split())
    if any(mark.lower() in text.lower() for mark in _OUT_OF_MEMORY):
        return EngineError(
            f"{what}: not enough memory ({text[:200]}); lower --max-model-len, --max-num-seqs or --gpu-memory-utilization, "
            "use --quantization fp8, or split the model with --tensor-parallel-size; finished answers are kept"
        )
    return EngineError(f"{what}: {type(error).__name__}: {text[:300]}; finished answers are kept, the same command continues")
