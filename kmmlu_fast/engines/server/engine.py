"""Engine over HTTP: any number of vLLM servers behind one OpenAI-compatible completions address.

In: Requests (token ids). Out: Responses, as they finish. Exact letter log-probabilities need
``logprob_token_ids``, and follow-ups need ``return_token_ids``. A server without them is refused before the
run; log-probabilities are never approximated. Knows nothing of KMMLU, nor of how the server is started.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kmmlu_fast.core.errors import AdapterError, EngineError
from kmmlu_fast.core.schema import Adapter, Candidates, Generation, Request, Response
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line
from kmmlu_fast.engines.counters import Counters
from kmmlu_fast.engines.protocol import FollowUp
from kmmlu_fast.engines.server.calls import CallSource
from kmmlu_fast.engines.server.client import CONTINUE, NotFoundError, ServerClient
from kmmlu_fast.engines.server.completions import (
    MALFORMED,
    completions_payload,
    divide_count,
    parse_count,
    parse_server_responses,
    parse_token_ids,
)

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

# In flight, if not given: a step of a large card holds hundreds of one-token requests; of texts so few that
# the last in a slow server's queue is answered in time.
ONE_TOKEN_REQUESTS, TEXT_REQUESTS = 512, 64
PROMPTS_PER_CALL = 8  # of one token: a call costs more than a prompt of the same subject
_MOST_MODELS = 1000
_MAX_PATH = 4096


class ServerEngine:
    """``concurrency`` requests in flight to ``base_url`` (which ends in /v1), from one background thread;
    several one-token requests travel in one call.

    ``model_names``: names under which the base model may be served (hub id, path, alias). Adapters are served
    under their own names, or loaded by path if the server allows it. ``transport`` replaces the network in
    tests.
    """

    def __init__(
        self,
        base_url: str,
        model_names: Sequence[str],
        adapters: Sequence[Adapter] = (),
        *,
        concurrency: int | None = None,
        attempts: int | None = None,
        first_wait_sec: float = 0.5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        started = time.monotonic()
        self._client = ServerClient(
            base_url,
            concurrency or ONE_TOKEN_REQUESTS,
            attempts=attempts,
            first_wait_sec=first_wait_sec,
            transport=transport,
        )
        self._url = self._client.base_url
        self._concurrency = concurrency
        # Few requests in flight travel alone, so that the server works on one while another arrives.
        self._prompts_per_call = min(PROMPTS_PER_CALL, max(1, (concurrency or ONE_TOKEN_REQUESTS) // 8))
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._counters = Counters()
        self._max_model_len: int | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="kmmlu-server-engine", daemon=True
        )
        self._thread.start()
        try:
            self._model = self._run_in_loop(self._check_server(list(model_names)))
        except BaseException:
            self.close()
            raise
        self._start_sec = time.monotonic() - started

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        calls = CallSource(requests, self._prompts_per_call)
        finished: queue.SimpleQueue[Future[list[Response]]] = queue.SimpleQueue()
        in_flight: dict[Future[list[Response]], int] = {}

        def refill() -> None:
            while call := calls.next_call(self._room(calls, sum(in_flight.values()))):
                future = asyncio.run_coroutine_threadsafe(self._answer(call), self._loop)
                in_flight[future] = len(call)
                future.add_done_callback(finished.put)

        try:
            refill()
            while in_flight:
                done = finished.get()
                in_flight.pop(done)
                answered = [
                    (response, follow_up(response) if follow_up else []) for response in done.result()
                ]
                for _, more in answered:
                    calls.add_follow_ups(more)
                refill()
                for response, more in answered:
                    yield replace(response, followed_by=len(more))
        finally:
            for future in in_flight:
                future.cancel()

    def _room(self, calls: CallSource, in_flight: int) -> int:
        """How many more requests may be sent now."""
        most = self._concurrency or ONE_TOKEN_REQUESTS
        if not self._concurrency and in_flight < most:
            request = calls.peek()
            if request is not None and isinstance(request.want, Generation):
                most = TEXT_REQUESTS
        return most - in_flight

    def stats(self) -> dict[str, Any]:
        return {
            "engine": "server",
            "served_model": self._model,
            "start_sec": round(self._start_sec, 3),
            **self._counters.counts(),
            "retries": self._client.retries,
        }

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._run_in_loop(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Before the run

    async def _check_server(self, model_names: list[str]) -> str:
        """The base model's served name; EngineError or AdapterError if the model, an adapter or exact
        log-probabilities are missing.
        """
        served = await self._list_served_models(min(self._client.attempts, 4))
        bases = [card for card in served.values() if not card.get("parent")]
        card = next((card for name in model_names for card in bases if _matches_model_name(card, name)), None)
        if card is None:
            names = ", ".join(bounded_repr(card["id"]) for card in bases[:10]) or "no model"
            raise EngineError(
                f"server {self._url} serves {names}, not {model_names[0]!r}: give one of them with --model,"
                f" or start the server with --served-model-name {model_names[0]}"
            )
        length = card.get("max_model_len")
        self._max_model_len = length if type(length) is int and length > 0 else None
        for adapter in self._adapters.values():
            if adapter.name in served:
                _check_same_weights(adapter, served[adapter.name])
            else:
                await self._load_adapter(adapter)
        for name in [str(card["id"]), *self._adapters]:
            await self._check_exact_logprobs(name)
        return str(card["id"])

    async def _list_served_models(self, attempts: int) -> dict[str, dict[str, Any]]:
        try:
            answer = await self._client.send("GET", "models", attempts=attempts)
            cards = [card for card in answer["data"] if isinstance(card["id"], str)]
            return {card["id"]: card for card in cards[:_MOST_MODELS]}
        except (NotFoundError, *MALFORMED) as error:
            raise EngineError(
                f"{self._url}/models is not an OpenAI-compatible model list: --base-url must end in /v1"
            ) from error

    async def _load_adapter(self, adapter: Adapter) -> None:
        fix = (
            f"start it with --enable-lora --max-lora-rank {adapter.rank} --lora-modules"
            f" {adapter.name}={adapter.path}"
        )
        payload = {"lora_name": adapter.name, "lora_path": str(adapter.path.resolve())}
        try:
            await self._client.send("POST", "load_lora_adapter", payload, attempts=1)
        except NotFoundError as error:
            if str(error) != "Not Found":  # the route exists: vLLM's message says what it did not find
                raise self._adapter_not_loaded(adapter, error, fix) from error
            raise AdapterError(
                f"server {self._url} does not serve adapter {adapter.name!r} and does not load adapters:"
                f" {fix}, or with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
            ) from error
        except EngineError as error:
            # It may have been loaded in spite of the error.
            if adapter.name not in await self._list_served_models(self._client.attempts):
                raise self._adapter_not_loaded(adapter, error, fix) from error

    def _adapter_not_loaded(self, adapter: Adapter, error: Exception, fix: str) -> AdapterError:
        return AdapterError(f"server {self._url} cannot load adapter {adapter.name!r}: {error}; or {fix}")

    async def _check_exact_logprobs(self, name: str) -> None:
        """Request one token with four candidates for two prompts; EngineError if the answer lacks exact
        log-probabilities. A server that answers one of them only gets one prompt per call.
        """
        request = Request(
            question_id="probe", stage="letters", token_ids=(0, 1, 2), want=Candidates((0, 1, 2, 3))
        )
        probes = [request, request]
        answer = await self._client.send("POST", "completions", completions_payload(probes, name))
        try:
            if len(answer["choices"]) == 1:
                probes, self._prompts_per_call = [request], 1
            parse_server_responses(probes, answer)
            _ = parse_token_ids(answer["choices"][0]["token_ids"])
        except MALFORMED as error:
            raise EngineError(
                f"server {self._url} ignores logprob_token_ids or return_token_ids: it gives no exact letter"
                " log-probabilities; use vLLM's server (vllm serve) or --engine vllm"
            ) from error

    # The run

    async def _answer(self, requests: list[Request]) -> list[Response]:
        """The responses to the requests of one call."""
        for request in requests:
            self._check_length(request)
        adapter_of_call = requests[0].adapter
        payload = completions_payload(requests, adapter_of_call.name if adapter_of_call else self._model)
        try:
            answer = await self._client.send("POST", "completions", payload)
        except NotFoundError:
            # A restarted server has lost the adapters that were loaded by path.
            adapter = self._adapters.get(payload["model"])
            if adapter is None:
                raise EngineError(
                    f"server {self._url} no longer serves {payload['model']!r}; {CONTINUE}"
                ) from None
            await self._load_adapter(adapter)
            try:
                answer = await self._client.send("POST", "completions", payload)
            except NotFoundError:
                raise EngineError(
                    f"server {self._url} lost adapter {adapter.name!r} again; {CONTINUE}"
                ) from None
        try:
            responses = parse_server_responses(requests, answer)
            output_tokens = divide_count(parse_count(answer["usage"]["completion_tokens"]), len(requests))
        except MALFORMED as error:
            why = one_line(f"{type(error).__name__}: {error}", 200)
            raise EngineError(
                f"server {self._url} gave an answer to {requests[0].key} without the requested values"
                f" ({why}); {CONTINUE}"
            ) from error
        for response, tokens in zip(responses, output_tokens, strict=True):
            self._counters.add(response, tokens)
        return responses

    def _check_length(self, request: Request) -> None:
        """EngineError if prompt and output exceed the server's context."""
        prompt_tokens, output_tokens = len(request.token_ids), request.want.max_tokens
        if self._max_model_len and prompt_tokens + output_tokens > self._max_model_len:
            raise EngineError(
                f"{request.key}: {prompt_tokens} prompt tokens + {output_tokens} to generate exceed the"
                f" server's {self._max_model_len}: start it with a larger --max-model-len, or lower"
                " --num-fewshot or --max-tokens"
            )

    def _run_in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _served_path(card: dict[str, Any]) -> Path:
    return Path(str(card.get("root") or "").replace("\0", "")[:_MAX_PATH])


def _matches_model_name(card: dict[str, Any], name: str) -> bool:
    if name in (card["id"], card.get("root")):
        return True
    root = _served_path(card)
    return root.is_absolute() and Path(name).exists() and root.resolve() == Path(name).resolve()


def _check_same_weights(adapter: Adapter, card: dict[str, Any]) -> None:
    """AdapterError if ``card`` is a base model, or an adapter whose files are visible and differ."""
    import hashlib

    if not card.get("parent"):
        raise AdapterError(
            f"adapter {adapter.name!r} has the name of a served base model: give it another name with"
            " --adapter NAME=PATH"
        )
    folder = _served_path(card)
    files = [folder / "adapter_model.safetensors", folder / "adapter_config.json"]
    if not all(file.is_file() for file in files):
        return
    content = b"".join(file.read_bytes() for file in files)
    digest = hashlib.sha256(content).hexdigest()  # as in models.adapters
    if adapter.digest and not digest.startswith(adapter.digest):
        raise AdapterError(
            f"the server's adapter {adapter.name!r} has other weights ({folder}) than {adapter.path}: give"
            " another name with --adapter NAME=PATH, or restart the server with the right adapter"
        )
