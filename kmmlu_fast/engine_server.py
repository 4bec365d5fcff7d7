"""Engine over HTTP: any number of vLLM servers behind one OpenAI-compatible completions address.

In: Requests (token ids). Out: Responses, as they finish. The letters' exact log-probabilities need ``logprob_token_ids`` and the follow-ups
``return_token_ids``, which plain OpenAI-compatible servers do not have: such a server is refused before the run, never approximated.
Transient faults (429, 5xx, timeouts, lost connections) are retried with growing waits, a bounded number of times; then EngineError, and the
run can be continued by the same command. The key is read from OPENAI_API_KEY, sent to this one address, and written nowhere.
Knows nothing of KMMLU, nor of how the server is run or found.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from kmmlu_fast.engine import FollowUp
from kmmlu_fast.errors import AdapterError, ConfigError, EngineError
from kmmlu_fast.schema import Adapter, Completion, Request, Response

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

ATTEMPTS = 16  # with waits of 0.5, 1, 2, ... 30 s: about five minutes, enough for a server to come back with a model of some size
READ_TIMEOUT_SEC = 900.0  # a long generation may wait in the server's queue
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

# Said outright, because `vllm serve` takes what is left out from the model's generation_config.json, where a repetition penalty may stand.
NEUTRAL_SAMPLING = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class _Transient(Exception):
    """Worth another attempt; ``retry_after_sec`` where the server named a wait."""

    def __init__(self, message: str, retry_after_sec: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_sec = retry_after_sec


class _NotServed(Exception):
    """404: the server does not know the model name that was asked for."""


class ServerEngine:
    """``concurrency`` requests in flight against ``base_url`` (which ends in /v1), from one background thread.

    ``model_names`` are the names under which the wanted base model may be served (hub id, path, alias); adapters must be served under their
    own names, or are loaded by path where the server allows it. ``transport`` replaces the network in tests.
    """

    def __init__(
        self,
        base_url: str,
        model_names: Sequence[str],
        adapters: Sequence[Adapter] = (),
        *,
        concurrency: int = 64,
        attempts: int | None = None,
        first_wait_sec: float = 0.5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        started = time.monotonic()
        self._base_url = check_base_url(base_url)
        self._concurrency = concurrency
        self._attempts = attempts or ATTEMPTS
        self._first_wait_sec = first_wait_sec
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._counters = dict.fromkeys(("requests", "prompt_tokens", "cached_tokens", "output_tokens", "retries"), 0)
        self._max_model_len: int | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kmmlu-server-engine", daemon=True)
        self._thread.start()
        self._client = self._open_client(transport)
        try:
            self._model = self._await(self._check_server(list(model_names)))
        except BaseException:
            self.close()
            raise
        self._start_sec = time.monotonic() - started

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        source = iter(requests)
        backlog: deque[Request] = deque()  # follow-ups, served before anything new so that questions get finished
        finished: queue.SimpleQueue[Future[Response]] = queue.SimpleQueue()
        in_flight: set[Future[Response]] = set()

        def refill() -> None:
            while len(in_flight) < self._concurrency:
                request = backlog.popleft() if backlog else next(source, None)
                if request is None:
                    return
                future = asyncio.run_coroutine_threadsafe(self._answer(request), self._loop)
                in_flight.add(future)
                future.add_done_callback(finished.put)

        try:
            refill()
            while in_flight:
                done = finished.get()
                in_flight.discard(done)
                response = done.result()
                more = follow_up(response) if follow_up else []
                backlog.extend(more)
                refill()
                yield replace(response, followed_by=len(more))
        finally:
            for future in in_flight:
                future.cancel()

    def stats(self) -> dict[str, Any]:
        return {"engine": "server", "served_model": self._model, "start_sec": round(self._start_sec, 3), **self._counters}

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._await(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Before the run

    def _open_client(self, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
        import httpx

        key = os.environ.get("OPENAI_API_KEY")
        return httpx.AsyncClient(
            base_url=self._base_url + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(60.0, connect=10.0, read=READ_TIMEOUT_SEC, pool=None),
            limits=httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
            trust_env=urlsplit(self._base_url).hostname not in LOOPBACK,  # a proxy has no business between a process and its own machine
            transport=transport,
        )

    async def _check_server(self, model_names: list[str]) -> str:
        """The base model's served name; raises where the model, an adapter or exact log-probabilities are missing."""
        served = await self._served(min(self._attempts, 4))
        bases = [card for card in served.values() if not card.get("parent")]
        card = next((card for name in model_names for card in bases if _is_named(card, name)), None)
        if card is None:
            names = ", ".join(repr(card["id"]) for card in bases) or "no model"
            raise EngineError(
                f"server {self._base_url} serves {names}, not {model_names[0]!r}: give --model with a model that it serves, "
                f"or start it with --served-model-name {model_names[0]}"
            )
        self._max_model_len = card.get("max_model_len")
        for adapter in self._adapters.values():
            if adapter.name in served:
                _check_same_weights(adapter, served[adapter.name])
            else:
                await self._load_adapter(adapter)
        for name in [str(card["id"]), *self._adapters]:
            await self._probe(name)
        return str(card["id"])

    async def _served(self, attempts: int) -> dict[str, dict[str, Any]]:
        try:
            answer = await self._send("GET", "models", attempts=attempts)
            return {str(card["id"]): card for card in answer["data"]}
        except (_NotServed, KeyError, TypeError) as error:
            raise EngineError(f"{self._base_url}/models is not an OpenAI-compatible model list: --base-url must end in /v1") from error

    async def _load_adapter(self, adapter: Adapter) -> None:
        by_hand = f"start it with --enable-lora --max-lora-rank {adapter.rank} --lora-modules {adapter.name}={adapter.path}"
        payload = {"lora_name": adapter.name, "lora_path": str(adapter.path.resolve())}
        try:
            await self._send("POST", "load_lora_adapter", payload, attempts=1)
        except _NotServed as error:
            if str(error) != "Not Found":  # the route exists: vLLM says itself what it did not find
                raise AdapterError(f"server {self._base_url} cannot load adapter {adapter.name!r}: {error}; or {by_hand}") from error
            raise AdapterError(
                f"server {self._base_url} does not serve adapter {adapter.name!r} and does not load adapters: {by_hand}, "
                "or with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
            ) from error
        except EngineError as error:
            if adapter.name not in await self._served(self._attempts):  # it may have been loaded meanwhile
                raise AdapterError(f"server {self._base_url} cannot load adapter {adapter.name!r}: {error}; or {by_hand}") from error

    async def _probe(self, name: str) -> None:
        """One token from the model with four candidates: shows that the answers carry what is needed."""
        request = Request(question_id="probe", stage="letters", token_ids=(0, 1, 2), candidate_ids=(0, 1, 2, 3))
        answer = await self._send("POST", "completions", self._payload(request, name))
        try:
            _read(request, answer)
            _ = [int(token_id) for token_id in answer["choices"][0]["token_ids"]]
        except (KeyError, IndexError, TypeError) as error:
            raise EngineError(
                f"server {self._base_url} ignores logprob_token_ids or return_token_ids, so exact letter log-probabilities cannot be had: "
                "use vLLM's server (vllm serve) or --engine vllm"
            ) from error

    # The run

    def _payload(self, request: Request, model: str) -> dict[str, Any]:
        payload: dict[str, Any] = {"model": model, "prompt": list(request.token_ids), "return_token_ids": True, **NEUTRAL_SAMPLING}
        if request.score_last:
            return payload | {"prompt_logprobs": 0, "max_tokens": 1, "temperature": 0.0}  # 0: the prompt's own tokens and no others
        if request.candidate_ids:
            ids = list(request.candidate_ids)
            letters = {"logprobs": len(ids), "logprob_token_ids": ids, "return_tokens_as_token_ids": True}
            return payload | letters | {"max_tokens": 1, "temperature": 0.0}
        payload |= {"max_tokens": request.max_tokens, "temperature": request.temperature, "top_p": request.top_p, "n": request.num_samples}
        if request.stop:
            payload |= {"stop": list(request.stop), "include_stop_str_in_output": request.include_stop}
        if request.seed is not None:
            payload |= {"seed": request.seed}
        return payload

    async def _answer(self, request: Request) -> Response:
        if self._max_model_len and len(request.token_ids) + request.max_tokens > self._max_model_len:
            raise EngineError(
                f"{request.key}: {len(request.token_ids)} prompt tokens + {request.max_tokens} to generate exceed the server's "
                f"{self._max_model_len}: start it with a larger --max-model-len, or give fewer --num-fewshot or --max-tokens"
            )
        payload = self._payload(request, request.adapter.name if request.adapter else self._model)
        try:
            answer = await self._send("POST", "completions", payload)
        except _NotServed:
            # A restarted server has forgotten the adapters that were loaded by path.
            adapter = self._adapters.get(payload["model"])
            if adapter is None:
                raise EngineError(f"server {self._base_url} no longer serves {payload['model']!r}; {_CONTINUE}") from None
            await self._load_adapter(adapter)
            try:
                answer = await self._send("POST", "completions", payload)
            except _NotServed:
                raise EngineError(f"server {self._base_url} lost adapter {adapter.name!r} again; {_CONTINUE}") from None
        try:
            response = _read(request, answer)
            usage = answer["usage"]
            self._counters["prompt_tokens"] += len(request.token_ids)
            self._counters["output_tokens"] += int(usage["completion_tokens"])
        except (KeyError, IndexError, TypeError) as error:
            raise EngineError(f"server {self._base_url} gave an answer to {request.key} without what was asked for; {_CONTINUE}") from error
        self._counters["requests"] += 1
        self._counters["cached_tokens"] += response.cached_tokens
        return response

    async def _send(self, method: str, path: str, payload: dict[str, Any] | None = None, attempts: int | None = None) -> dict[str, Any]:
        import tenacity

        attempts = attempts or self._attempts
        backoff = tenacity.wait_exponential_jitter(multiplier=self._first_wait_sec, max=30, jitter=self._first_wait_sec)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            named = error.retry_after_sec if isinstance(error, _Transient) else 0.0
            return max(backoff(state), min(named, 60.0))

        def count(_: tenacity.RetryCallState) -> None:
            self._counters["retries"] += 1

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Transient), stop=tenacity.stop_after_attempt(attempts), wait=wait,
            before_sleep=count, reraise=True,
        )  # fmt: skip
        try:
            answer: dict[str, Any] = await retrying(self._send_once, method, path, payload)
        except _Transient as error:
            raise EngineError(f"server {self._base_url}: {error}, after {attempts} attempts; {_CONTINUE}") from error
        return answer

    async def _send_once(self, method: str, path: str, payload: dict[str, Any] | None) -> dict[str, Any]:
        import httpx

        try:
            reply = await self._client.request(method, path, json=payload)
        except httpx.TransportError as error:
            raise _Transient(f"no answer ({type(error).__name__})") from error
        if reply.status_code in TRANSIENT_STATUS:
            raise _Transient(f"status {reply.status_code}", _seconds(reply.headers.get("retry-after")))
        if reply.status_code in (401, 403):
            raise EngineError(f"server {self._base_url} refused the key (status {reply.status_code}): set OPENAI_API_KEY")
        if reply.status_code == 404:
            raise _NotServed(_message(reply))
        if not reply.is_success:
            raise EngineError(f"server {self._base_url} refused {path} (status {reply.status_code}): {_message(reply)}")
        try:
            answer = reply.json()
        except ValueError:
            return {}  # load_lora_adapter answers in plain words; anything else is missed by its reader
        return answer if isinstance(answer, dict) else {}

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


_CONTINUE = "when it answers again, run the same command to continue"


def check_base_url(base_url: str) -> str:
    """``base_url`` without a trailing slash. A password in it is refused: the address is written into the run's config."""
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"--base-url {base_url!r}: {error}; give such as http://localhost:8000/v1") from error
    if parts.username or parts.password:
        raise ConfigError("--base-url must not hold a user or password: the address is saved with the run; set OPENAI_API_KEY instead")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"--base-url {base_url!r} is not an http(s) address; give such as http://localhost:8000/v1")
    return base_url.rstrip("/")


def _read(request: Request, answer: dict[str, Any]) -> Response:
    """Response from a completions answer. KeyError, IndexError or TypeError where something that was asked for is missing."""
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    details = answer["usage"].get("prompt_tokens_details") or {}
    cached_tokens = int(details.get("cached_tokens") or 0)  # needs --enable-prompt-tokens-details on the server's side
    if request.score_last:
        last = range(len(request.token_ids) - request.score_last, len(request.token_ids))
        scores = choices[0]["prompt_logprobs"]
        total = sum(float(scores[i][str(request.token_ids[i])]["logprob"]) for i in last)
        return Response(request, logprobs=(total,), cached_tokens=cached_tokens)
    if request.candidate_ids:
        first = choices[0]["logprobs"]["top_logprobs"][0]
        logprobs = tuple(float(first[f"token_id:{token_id}"]) for token_id in request.candidate_ids)
        return Response(request, logprobs=logprobs, cached_tokens=cached_tokens)
    if len(choices) != request.num_samples:
        raise IndexError(f"{len(choices)} choices for n={request.num_samples}")
    completions = tuple(Completion(c["text"], tuple(map(int, c["token_ids"])), str(c["finish_reason"])) for c in choices)
    return Response(request, completions=completions, cached_tokens=cached_tokens)


def _is_named(card: dict[str, Any], name: str) -> bool:
    if name in (card["id"], card.get("root")):
        return True
    root = Path(str(card.get("root") or ""))
    return root.is_absolute() and Path(name).exists() and root.resolve() == Path(name).resolve()


def _check_same_weights(adapter: Adapter, card: dict[str, Any]) -> None:
    """The served adapter of that name must be the one that was asked for, where its files can be seen from here."""
    import hashlib

    folder = Path(str(card.get("root") or ""))
    files = [folder / "adapter_model.safetensors", folder / "adapter_config.json"]
    if not card.get("parent"):
        raise AdapterError(f"adapter {adapter.name!r} has the name of a served base model: give it another, --adapter NAME=PATH")
    if not all(file.is_file() for file in files):
        return
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()  # as models.load_adapters makes it
    if adapter.digest and not digest.startswith(adapter.digest):
        raise AdapterError(
            f"the server's adapter {adapter.name!r} has other weights ({folder}) than {adapter.path}: "
            "give --adapter NAME=PATH with another name, or restart the server with the right one"
        )


def _seconds(retry_after: str | None) -> float:
    try:
        return float(retry_after or 0)
    except ValueError:  # an HTTP date: the usual waits do
        return 0.0


def _message(reply: httpx.Response) -> str:
    try:
        body = reply.json()
        text = (body.get("error") or body).get("message") or body.get("detail") or reply.text
    except (ValueError, AttributeError):
        text = reply.text
    return " ".join(str(text).split())[:300]
