"""Transformers in process, as an Engine: the plain forward pass that other engines are measured against.

In: Requests of token ids. Out: Responses, a batch at a time, in another order than they were asked. It serves
what vLLM cannot: a bitsandbytes nf4 base with the adapter that was trained on it, in 8 GB. Letters and
continuations take one forward a question, in batches of like length; few-shot prefixes are computed once a
group; generation goes through ``model.generate``. Knows nothing of KMMLU.
"""

from __future__ import annotations

import functools
import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
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
_WINDOW_BATCHES = 4  # full batches' worth of requests that are sorted together
_CACHED = 4  # times the tokens of a pass, while generating
_COUNTERS = ("requests", "prompt_tokens", "cached_tokens", "padding_tokens", "output_tokens", "batches")


class TransformersEngine:
    """One model in this process, on the first GPU or the CPU, and its adapters, applied unmerged by PEFT."""

    def __init__(self, settings: TransformersSettings) -> None:
        """Load the model and the adapters. EngineError or AdapterError where one cannot be served."""
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
        backlog: deque[Request] = deque()  # follow-ups, before anything new: questions get finished
        while True:
            window = [backlog.popleft() for _ in range(min(len(backlog), self._window))]
            while len(window) < self._window and (request := next(source, None)) is not None:
                window.append(request)
            if not window:
                return
            for response in self._answer_window(window):
                more = follow_up(response) if follow_up else []
                backlog.extend(more)
                yield replace(response, followed_by=len(more))

    def _answer_window(self, window: Sequence[Request]) -> Iterator[Response]:
        try:
            for (_, writes), alike in groupby(sorted(window, key=_batch_key), key=_batch_key):
                group = list(alike)
                yield from self._generate_texts(group) if writes else self._score_requests(group)
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
            found = self._try_batch(
                self._score_batch, batch, len(batch.requests), batch.longest_suffix_tokens
            )
            if found is None:
                left = [request for some in (batch, *batches) for request in some.requests]
                batches = deque(scoring_batches(left, self._limits, self._least_saved_tokens))
                continue
            for place, (request, logprobs) in enumerate(zip(batch.requests, found, strict=True)):
                cached = batch.shared_tokens if place else 0  # the first row pays for the prefix
                self._add_counts(
                    requests=1,
                    cached_tokens=cached,
                    padding_tokens=batch.longest_suffix_tokens + batch.shared_tokens,
                )
                self._add_counts(prompt_tokens=len(request.token_ids), padding_tokens=-len(request.token_ids))
                yield Response(request, logprobs=logprobs, cached_tokens=cached)

    def _score_batch(self, batch: ScoringBatch) -> list[tuple[float, ...]]:
        self._switch.activate(batch.requests[0].adapter)
        return self._scorer.score(batch)

    def _generate_texts(self, requests: Sequence[Request]) -> Iterator[Response]:
        found: dict[int, dict[int, Completion]] = {id(request): {} for request in requests}
        rows = [row for request in requests for row in generation_rows(request)]
        batches = deque(generating_batches(rows, self._limits))
        while batches:
            batch = batches.popleft()
            completions = self._try_batch(
                self._generate_batch, batch, len(batch), max(row.tokens for row in batch)
            )
            if completions is None:
                left = [row for some in (batch, *batches) for row in some]
                batches = deque(generating_batches(left, self._limits))
                continue
            for row, completion in zip(batch, completions, strict=True):
                self._add_counts(output_tokens=len(completion.token_ids))
                own = found[id(row.request)]
                own[row.sample] = completion
                if len(own) == row.want.num_samples:
                    self._add_counts(requests=1, prompt_tokens=len(row.request.token_ids))
                    yield Response(row.request, completions=tuple(own[sample] for sample in sorted(own)))

    def _generate_batch(self, rows: list[GenerationRow]) -> list[Completion]:
        self._switch.activate(rows[0].request.adapter)
        settings, (tokenizer, end_ids) = self.settings, self._tokenizer_and_end_ids
        return decoding.generate_completions(
            self._model, rows, tokenizer, end_ids, settings.max_model_len, settings.seed, self._device
        )

    @functools.cached_property
    def _tokenizer_and_end_ids(self) -> tuple[Any, frozenset[int]]:
        """The tokenizer, and the tokens that end a text: its own and the generation config's, as in vLLM."""
        from transformers import AutoTokenizer

        name = self.settings.tokenizer or self.settings.model
        revision = self.settings.revision if name == self.settings.model else None
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=self.settings.trust_remote_code
        )
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise EngineError(
                f"model {name}: its tokenizer has no fast form (tokenizer.json), which generation needs"
            )
        own = self._model.generation_config.eos_token_id
        ends = own if isinstance(own, list) else [own]
        return tokenizer, frozenset(token for token in (tokenizer.eos_token_id, *ends) if token is not None)

    def _try_batch(self, work: Callable[[B], T], batch: B, rows: int, tokens_a_row: int) -> T | None:
        """``work(batch)``; None after memory ran out and the limits were lowered. EngineError if one row does
        not fit."""
        try:
            found = work(batch)
            self._add_counts(batches=1)
            return found
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise EngineError(
                    f"not enough memory for a prompt of {tokens_a_row} tokens; use --quantization nf4, fewer "
                    "--num-fewshot or a smaller model; finished answers are kept"
                ) from None
        # Outside the handler: the error's traceback held the batch's tensors.
        self._scorer.drop_prefix_cache()
        _free_memory(self._device)
        self._limits = self._limits.after_out_of_memory(rows, tokens_a_row)
        log_note(f"engine: memory ran out in a batch of {rows} x {tokens_a_row} tokens; going on with half")
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
    """What must not share a pass: adapters, and scoring with generating."""
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
