"""Transformers in process, as an Engine: the plain forward pass that other engines are measured against.

In: Requests of token ids. Out: Responses, a batch at a time, not in the order of the requests. It serves what
vLLM cannot: a bitsandbytes nf4 base with the adapter that was trained on it, in 8 GB. Letters and
continuations take one forward pass per question, in batches of similar length; few-shot prefixes are computed
once per group; generation uses ``model.generate``. Knows nothing of KMMLU.
"""

from __future__ import annotations

import functools
import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any, TypeVar

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.core.schema import Completion, Generation, Request, Response
from kmmlu_fast.engines.counters import cache_hit_rate
from kmmlu_fast.engines.hf import decoding
from kmmlu_fast.engines.hf.batching import (
    BatchLimits,
    GenerationRow,
    ScoringBatch,
    generating_batches,
    generation_rows,
    scoring_batches,
)
from kmmlu_fast.engines.hf.model import (
    AdapterSwitch,
    TransformersSettings,
    is_out_of_memory,
    load_transformers_model,
)
from kmmlu_fast.engines.hf.scoring import Scorer
from kmmlu_fast.engines.protocol import FollowUp
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.machine.memory_fit import settings_for_memory

B = TypeVar("B")
T = TypeVar("T")
_CPU_TOKENS, _CPU_ROWS = 2048, 64
_GPU_ROWS = 256
_WINDOW_BATCHES = 4  # requests of this many full batches are sorted together
_CACHED = 4  # key-value cache while generating, in multiples of a pass's tokens
_COUNTERS = ("requests", "prompt_tokens", "cached_tokens", "padding_tokens", "output_tokens", "batches")


class TransformersEngine:
    """One model in this process, on the first GPU or the CPU, and its adapters, applied unmerged by PEFT."""

    def __init__(self, settings: TransformersSettings) -> None:
        """Load the model and the adapters. EngineError or AdapterError if one cannot be served."""
        began = time.monotonic()
        self.settings = settings
        self._device = "cuda:0" if has_gpu() else "cpu"
        self._model, self.dtype = load_transformers_model(settings, self._device)
        self._switch = AdapterSwitch(self._model, settings.adapters, self._device, self.dtype)
        self._scorer = Scorer(self._model, self._device, settings.letter_precision == "float32")
        self._limits = _initial_limits(settings, self._device)
        self._window = _WINDOW_BATCHES * self._limits.rows
        self._least_saved_tokens = self._limits.tokens // 4 if self._scorer.reuses_prefixes else None
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self.start_sec = time.monotonic() - began

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        if self._model is None:
            raise EngineError("the engine was closed")
        source = iter(requests)
        backlog: deque[Request] = deque()  # follow-ups, before new requests, so that questions get finished
        while True:
            window = [backlog.popleft() for _ in range(min(len(backlog), self._window))]
            window += islice(source, self._window - len(window))
            if not window:
                return
            for response in self._answer_window(window):
                more = follow_up(response) if follow_up else []
                backlog.extend(more)
                yield replace(response, followed_by=len(more))

    def _answer_window(self, window: Sequence[Request]) -> Iterator[Response]:
        try:
            for (_, generates), group in groupby(sorted(window, key=_batch_key), key=_batch_key):
                answer = self._generate_texts if generates else self._score_requests
                yield from answer(list(group))
        except KmmluError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise EngineError(
                f"the engine stopped: {text}; finished answers are kept, the same command continues"
            ) from error
        finally:
            self._scorer.drop_prefix_cache()

    def _score_requests(self, requests: Sequence[Request]) -> Iterator[Response]:
        batches = deque(scoring_batches(requests, self._limits, self._least_saved_tokens))
        while batches:
            batch = batches.popleft()
            suffix_tokens = batch.longest_suffix_tokens
            scores = self._try_batch(self._score_batch, batch, len(batch.requests), suffix_tokens)
            if scores is None:
                remaining = [request for later in (batch, *batches) for request in later.requests]
                batches = deque(scoring_batches(remaining, self._limits, self._least_saved_tokens))
                continue
            cached_tokens = 0  # of the first row, which computes the prefix
            for request, logprobs in zip(batch.requests, scores, strict=True):
                prompt_tokens = len(request.token_ids)
                self._add_counts(
                    requests=1,
                    prompt_tokens=prompt_tokens,
                    cached_tokens=cached_tokens,
                    padding_tokens=suffix_tokens + batch.shared_tokens - prompt_tokens,
                )
                yield Response(request, logprobs=logprobs, cached_tokens=cached_tokens)
                cached_tokens = batch.shared_tokens

    def _score_batch(self, batch: ScoringBatch) -> list[tuple[float, ...]]:
        self._switch.activate(batch.requests[0].adapter)
        return self._scorer.score(batch)

    def _generate_texts(self, requests: Sequence[Request]) -> Iterator[Response]:
        by_request: dict[int, dict[int, Completion]] = {id(request): {} for request in requests}
        rows = [row for request in requests for row in generation_rows(request)]
        batches = deque(generating_batches(rows, self._limits))
        while batches:
            batch = batches.popleft()
            longest = max(row.tokens for row in batch)
            completions = self._try_batch(self._generate_batch, batch, len(batch), longest)
            if completions is None:
                remaining = [row for later in (batch, *batches) for row in later]
                batches = deque(generating_batches(remaining, self._limits))
                continue
            for row, completion in zip(batch, completions, strict=True):
                self._add_counts(output_tokens=len(completion.token_ids))
                samples = by_request[id(row.request)]
                samples[row.sample] = completion
                if len(samples) == row.want.num_samples:
                    self._add_counts(requests=1, prompt_tokens=len(row.request.token_ids))
                    yield Response(row.request, completions=tuple(samples[n] for n in sorted(samples)))

    def _generate_batch(self, rows: list[GenerationRow]) -> list[Completion]:
        self._switch.activate(rows[0].request.adapter)
        settings, (tokenizer, end_ids) = self.settings, self._tokenizer_and_end_ids
        return decoding.generate_completions(
            self._model, rows, tokenizer, end_ids, settings.max_model_len, settings.seed, self._device
        )

    @functools.cached_property
    def _tokenizer_and_end_ids(self) -> tuple[Any, frozenset[int]]:
        """The tokenizer, and the tokens that end a text: its own and the generation config's, as in vLLM.

        EngineError if the tokenizer is not a fast one.
        """
        from transformers import AutoTokenizer

        name = self.settings.tokenizer or self.settings.model
        revision = self.settings.revision if name == self.settings.model else None
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=self.settings.trust_remote_code
        )
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise EngineError(
                f"model {name}: generation needs a fast tokenizer (tokenizer.json), which it does not have"
            )
        configured = self._model.generation_config.eos_token_id
        end_ids = configured if isinstance(configured, list) else [configured]
        return tokenizer, frozenset({tokenizer.eos_token_id, *end_ids} - {None})

    def _try_batch(self, work: Callable[[B], T], batch: B, rows: int, tokens_per_row: int) -> T | None:
        """``work(batch)``; None after memory ran out and the limits were lowered. EngineError if one row does
        not fit.
        """
        try:
            result = work(batch)
            self._add_counts(batches=1)
            return result
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise EngineError(
                    f"not enough memory for a prompt of {tokens_per_row} tokens; use --quantization nf4, a"
                    " lower --num-fewshot or a smaller model; finished answers are kept"
                ) from None
        # Outside the handler: the error's traceback refers to the batch's tensors.
        self._scorer.drop_prefix_cache()
        _free_memory(self._device)
        self._limits = self._limits.after_out_of_memory(rows, tokens_per_row)
        log_note(
            f"engine: out of memory in a batch of {rows} x {tokens_per_row} tokens; continuing with half"
        )
        return None

    def _add_counts(self, **counts: int) -> None:
        for name, value in counts.items():
            self._counters[name] += value

    def stats(self) -> dict[str, Any]:
        import transformers

        return {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "device": self._device,
            "dtype": self.dtype,
            "quantization": self.settings.quantization,
            "start_sec": round(self.start_sec, 2),
            **self._counters,
            "prefix_cache_hit_rate": cache_hit_rate(
                self._counters["prompt_tokens"], self._counters["cached_tokens"]
            ),
        }

    def close(self) -> None:
        if self._model is None:
            return
        self._scorer.close()
        self._switch.close()
        self._model = None
        self.__dict__.pop("_tokenizer_and_end_ids", None)
        _free_memory(self._device)


def _batch_key(request: Request) -> tuple[str, bool]:
    """Requests with different keys must not share a pass: other adapters, or scoring and generation."""
    adapter = request.adapter.digest if request.adapter else ""
    return adapter, isinstance(request.want, Generation)


def _initial_limits(settings: TransformersSettings, device: str) -> BatchLimits:
    if device == "cpu":
        tokens, rows = _CPU_TOKENS, _CPU_ROWS
    else:
        import torch

        by_memory = settings_for_memory(torch.cuda.get_device_properties(device).total_memory)
        tokens, rows = by_memory.max_num_batched_tokens, min(_GPU_ROWS, by_memory.max_num_seqs)
    tokens = settings.max_num_batched_tokens or tokens
    return BatchLimits(tokens, settings.max_num_seqs or rows, _CACHED * tokens)


def _free_memory(device: str) -> None:
    gc.collect()
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()
