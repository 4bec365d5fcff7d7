"""llama.cpp in process, as an Engine: what a GGUF file answers where it is served.

In: Requests of token ids. Out: Responses, in the order in which they finish. Every request is one sequence of
llama.cpp's continuous batching. Letters are read from one decode: llama.cpp returns the log-probabilities of
the most probable tokens before any sampler, and is asked for more of them until all candidates are there.
Knows nothing of KMMLU.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Candidates, Completion, Continuation, Generation, Request, Response
from kmmlu_fast.engines.counters import Counters
from kmmlu_fast.engines.protocol import FollowUp
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.models.gguf import read_gguf_file
from kmmlu_fast.models.llama_cpp import LlamaCppModel

_CPU_SLOTS, _GPU_SLOTS = 8, 32
_FIRST_PROBS, _MOST_FIRST_PROBS = 256, 4096  # most probable tokens asked for at first
_MORE_PROBS = 16  # times as many if a candidate is not among them
_SPARE_TOKENS = 8  # of a sequence's context, beyond prompt and output
_CACHED = "cache_n"
_PLAIN_TEXTS = ("A", "a", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppSettings:
    """All settings of the engine. ``None`` = chosen by device."""

    path: Path
    max_model_len: int
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    seed: int = 42


class LlamaCppEngine:
    """One GGUF file in this process."""

    def __init__(self, settings: LlamaCppSettings) -> None:
        """Load the file. ModelError if it is damaged, EngineError if llama.cpp cannot load it."""
        began = time.monotonic()
        self.settings = settings
        self._file = read_gguf_file(settings.path)
        self._slots = settings.max_num_seqs or (_GPU_SLOTS if has_gpu() else _CPU_SLOTS)
        self._model = LlamaCppModel(
            settings.path,
            context_tokens=settings.max_model_len + _SPARE_TOKENS,
            slots=self._slots,
            batch_tokens=settings.max_num_batched_tokens or 2048,
        )
        tokens = self._file.tokens
        self._vocabulary = len(tokens)
        self._plain_token = next((tokens.index(text) for text in _PLAIN_TEXTS if text in tokens), 0)
        self._first_probs = min(_FIRST_PROBS, self._vocabulary)
        self._counters, self._retries = Counters(), 0
        self._closed = False
        self.start_sec = time.monotonic() - began

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        if self._closed:
            raise EngineError("the engine was closed")
        source = iter(requests)
        backlog: deque[Request] = deque()  # follow-ups, before new requests, so that questions get finished
        running: set[Future[Response]] = set()
        pool = ThreadPoolExecutor(self._slots, "llama-cpp")
        try:
            while True:
                while len(running) < 2 * self._slots:
                    request = backlog.popleft() if backlog else next(source, None)
                    if request is None:
                        break
                    self._check_request(request)
                    running.add(pool.submit(self._answer, request))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    response = future.result()
                    self._counters.add(response)
                    more = follow_up(response) if follow_up else []
                    backlog.extend(more)
                    yield replace(response, followed_by=len(more))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _check_request(self, request: Request) -> None:
        if request.adapter is not None:
            raise EngineError(
                f"adapter {request.adapter.name}: --engine llama-cpp serves what a GGUF file holds; export"
                " the"
                " adapter merged (kmmlu-fast export --to gguf) and give that file with --model"
            )
        highest = max(request.token_ids, default=0)
        if highest >= self._vocabulary:
            raise EngineError(
                f"{self.settings.path}: token {highest} is not in its vocabulary of {self._vocabulary}; it"
                " was"
                " made from another model"
            )

    def _answer(self, request: Request) -> Response:
        match request.want:
            case Candidates(token_ids=wanted):
                logprobs, cached = self._score_next_tokens(request.token_ids, wanted)
                return Response(request, logprobs=logprobs, cached_tokens=cached)
            case Continuation(num_tokens=count):
                ids, total = request.token_ids, 0.0
                for place in range(len(ids) - count, len(ids)):
                    (logprob,), _ = self._score_next_tokens(ids[:place], (ids[place],))
                    total += logprob
                return Response(request, logprobs=(total,))
            case Generation() as want:
                samples = [self._generate_text(request, want, index) for index in range(want.num_samples)]
                return Response(request, completions=tuple(samples))

    def _score_next_tokens(
        self, prompt: tuple[int, ...], wanted: tuple[int, ...]
    ) -> tuple[tuple[float, ...], int]:
        """Log-probabilities of the wanted tokens after the prompt, and the prompt tokens that were cached."""
        count = self._first_probs
        while True:
            # Sampling is steered to a plain letter: llama.cpp reports no probabilities for a token that ends
            # the text or is part of a character. What it reports is taken before the steering.
            steering = [[self._plain_token, 1000.0]]
            answer = self._complete(prompt, n_predict=1, n_probs=count, temperature=0.0, logit_bias=steering)
            known = {
                entry["id"]: float(entry["logprob"])
                for entry in answer["completion_probabilities"][0]["top_logprobs"]
            }
            if all(token in known for token in wanted):
                return tuple(known[token] for token in wanted), int(answer["timings"][_CACHED])
            if count >= self._vocabulary:
                missing = next(token for token in wanted if token not in known)
                raise EngineError(
                    f"{self.settings.path}: llama.cpp gives token {missing} no probability; its numbers"
                    " overflow, or its weights are damaged"
                )
            self._retries += 1
            self._first_probs = min(2 * self._first_probs, _MOST_FIRST_PROBS, self._vocabulary)
            count = min(_MORE_PROBS * count, self._vocabulary)

    def _generate_text(self, request: Request, want: Generation, sample: int) -> Completion:
        seed = self.settings.seed if want.seed is None else want.seed
        answer = self._complete(
            request.token_ids,
            n_predict=want.max_tokens,
            temperature=want.temperature,
            **_sampler_options(want),
            seed=(seed + sample) % 2**32,
            stop=list(want.stop),
            return_tokens=True,
        )
        text = str(answer["content"])
        if want.include_stop:
            text += str(answer["stopping_word"])
        reason = "length" if answer["stop_type"] == "limit" else "stop"
        return Completion(text, tuple(answer["tokens"]), reason)

    def _complete(self, prompt: tuple[int, ...], **options: Any) -> dict[str, Any]:
        # Other engines' samplers, in their order; llama.cpp's own defaults would add more.
        body = {"prompt": list(prompt), "samplers": ["temperature", "top_p"], "cache_prompt": True, **options}
        return self._model.post("/completion", body)

    def stats(self) -> dict[str, Any]:
        from kmmlu_fast.machine.environment import package_version

        return {
            "engine": "llama-cpp",
            "xllamacpp": package_version("xllamacpp"),
            "file": self.settings.path.name,
            "weights": str(self._file.metadata.get("general.file_type", "")),
            "slots": str(self._slots),  # not a count
            "start_sec": round(self.start_sec, 2),
            "letter_retries": self._retries,
            **self._counters.stats(),
        }

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._model.close()


def _sampler_options(want: Generation) -> dict[str, Any]:
    """llama.cpp's names of what cuts the distribution; those that cut nothing are left out."""
    options: dict[str, Any] = {"top_p": want.top_p}
    if want.min_p or want.top_k:
        options |= {"min_p": want.min_p, "top_k": want.top_k}
        options["samplers"] = ["temperature", "min_p", "top_k", "top_p"]
    return options
