"""HTTP to one OpenAI-compatible address: JSON in, JSON out; transient faults are retried, others raised.

In: method, path, payload. Out: the answer's JSON object. 408, 425, 429, 5xx, timeouts and lost connections
are retried with growing waits, a bounded number of times; then EngineError, which says how to continue.
The key is read from OPENAI_API_KEY, sent to this address only, and never written. Knows nothing of models or
completions.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.core.reading import parse_json
from kmmlu_fast.core.untrusted_text import bounded_repr, mask_credentials, one_line

if TYPE_CHECKING:
    import httpx

# With waits of 0.5, 1, 2, ... 30 s: about five minutes, enough for a server to reload a fairly large model.
ATTEMPTS = 16
READ_TIMEOUT_SEC = 900.0  # a long generation may wait in the server's queue
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
SLOW_ATTEMPTS = 2  # if answers do not end in time: more attempts would take hours
ANSWER_SEC = 1800.0  # for a whole answer, header and body, however slowly it arrives
MODELS_SEC = 60.0
MAX_ANSWER_BYTES = 64 << 20  # ten times the log-probabilities of a prompt of 100,000 tokens
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NETWORK_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
CONTINUE = "when it answers again, run the same command to continue"


class NotFoundError(Exception):
    """404: no such route, or a model that is not served; the message is the server's."""


class _TransientError(Exception):
    """Worth another attempt; ``retry_after_sec``: the wait that the server asked for, or 0."""

    def __init__(self, message: str, retry_after_sec: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_sec = retry_after_sec


class _AnswerTimeoutError(_TransientError):
    """The answer did not end in time."""


class ServerClient:
    """``send`` from one event loop, at most ``connections`` at once. ``transport`` replaces the network in
    tests.
    """

    def __init__(
        self,
        base_url: str,
        connections: int,
        *,
        attempts: int | None = None,
        first_wait_sec: float = 0.5,
        transport: httpx.AsyncBaseTransport | None = None,
        answer_sec: float | None = None,
    ) -> None:
        import httpx

        self._answer_sec = answer_sec or ANSWER_SEC
        self.base_url = check_base_url(base_url)
        self.attempts = attempts or ATTEMPTS
        self.retries = 0
        self._first_wait_sec = first_wait_sec
        # identity: no kilobyte may unpack to gigabytes.
        headers = {"Accept-Encoding": "identity", **_authorization()}
        try:
            self._http = httpx.AsyncClient(
                base_url=self.base_url + "/",
                headers=headers,
                timeout=httpx.Timeout(60.0, connect=10.0, read=READ_TIMEOUT_SEC, pool=None),
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                # no proxy between a process and its own machine
                trust_env=urlsplit(self.base_url).hostname not in LOOPBACK,
                transport=transport,
            )
        except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
            raise ConfigError(
                f"server {self.base_url}: the environment's network settings cannot be used"
                f" ({one_line(str(error), 200)}); correct or unset {_set_network_variables()}"
            ) from error

    async def send(
        self, method: str, path: str, payload: dict[str, Any] | None = None, attempts: int | None = None
    ) -> dict[str, Any]:
        """The answer; {} if it is not a JSON object. NotFoundError on 404; EngineError on other refusals and
        after the last attempt.
        """
        import tenacity

        attempts = attempts or self.attempts
        backoff = tenacity.wait_exponential_jitter(
            multiplier=self._first_wait_sec, max=30, jitter=self._first_wait_sec
        )

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            requested_sec = error.retry_after_sec if isinstance(error, _TransientError) else 0.0
            return max(backoff(state), min(requested_sec, 60.0))

        timeouts: list[int] = []

        def enough(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, _AnswerTimeoutError):
                timeouts.append(state.attempt_number)
            return len(timeouts) >= SLOW_ATTEMPTS or state.attempt_number >= attempts

        def count(_: tenacity.RetryCallState) -> None:
            self.retries += 1

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=enough,
            wait=wait,
            before_sleep=count,
            reraise=True,
        )
        try:
            answer: dict[str, Any] = await retrying(self._send_once, method, path, payload)
        except _TransientError as error:
            made = len(timeouts) if isinstance(error, _AnswerTimeoutError) else attempts
            raise EngineError(
                f"server {self.base_url}: {error}, after {made} attempts; {CONTINUE}"
            ) from error
        return answer

    async def close(self) -> None:
        await self._http.aclose()

    async def _send_once(self, method: str, path: str, payload: dict[str, Any] | None) -> dict[str, Any]:
        import httpx

        limit_sec = min(self._answer_sec, MODELS_SEC) if path == "models" else self._answer_sec
        try:
            async with asyncio.timeout(limit_sec), self._http.stream(method, path, json=payload) as reply:
                text = await self._read_body(reply)
        except TimeoutError as error:
            raise _AnswerTimeoutError(f"no whole answer within {limit_sec:,.0f} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _TransientError(f"no answer ({type(error).__name__})") from error
        if reply.status_code in TRANSIENT_STATUS:
            raise _TransientError(
                f"status {reply.status_code}", _parse_retry_after(reply.headers.get("retry-after"))
            )
        if reply.status_code in (401, 403):
            raise EngineError(
                f"server {self.base_url} refused the key (status {reply.status_code}): set OPENAI_API_KEY"
            )
        if reply.status_code == 404:
            raise NotFoundError(_server_error_message(text))
        if not reply.is_success:
            message = _server_error_message(text)
            raise EngineError(
                f"server {self.base_url} refused {path} (status {reply.status_code}): {message}"
            )
        # {} is fine for load_lora_adapter, which answers in plain words; parsers of other answers reject it.
        return _parse_json_object(text)

    async def _read_body(self, reply: httpx.Response) -> str:
        """The body as text; EngineError if it is compressed or longer than MAX_ANSWER_BYTES."""
        encoding = reply.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise EngineError(
                f"server {self.base_url} compresses its answers ({bounded_repr(encoding)}) though the request"
                " forbids it: turn compression off"
            )
        body = bytearray()
        async for piece in reply.aiter_bytes():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise EngineError(
                    f"server {self.base_url} sent an answer of more than {MAX_ANSWER_BYTES >> 20} MiB: it is"
                    " not a completions server"
                )
        return body.decode("utf-8", "replace")


def _authorization() -> dict[str, str]:
    """The header with the key, {} if there is none. ConfigError if no header can hold the key."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            "OPENAI_API_KEY: holds spaces, line breaks or characters outside ASCII, which no key has; set it"
            " again"
        )
    return {"Authorization": f"Bearer {key}"}


def _set_network_variables() -> str:
    """The variables that httpx reads and that are set, by name."""
    names = [name for name in _NETWORK_VARIABLES if os.environ.get(name) or os.environ.get(name.lower())]
    return ", ".join(names) or ", ".join(_NETWORK_VARIABLES)


def check_base_url(base_url: str) -> str:
    """``base_url`` without a trailing slash; ConfigError if it is not an http(s) URL, if httpx refuses it, or
    if it has a password.
    """
    shown = mask_credentials(bounded_repr(base_url))
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(
            f"--base-url {shown}: {error}; give an address such as http://localhost:8000/v1"
        ) from error
    if parts.username or parts.password:
        raise ConfigError(
            "--base-url must not contain a user or password: the address is saved with the run; set"
            " OPENAI_API_KEY instead"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(
            f"--base-url {shown} is not an http(s) address; give one such as http://localhost:8000/v1"
        )
    if problem := _httpx_problem(base_url):
        raise ConfigError(f"--base-url {shown}: {problem}; give an address such as http://localhost:8000/v1")
    return base_url.rstrip("/")


def _httpx_problem(base_url: str) -> str:
    """Why httpx would refuse requests to the address, "" if it would not (or is not installed)."""
    if any(character.isspace() for character in base_url):
        return "contains a space"
    try:
        import httpx
    except ImportError:  # told when the engine is opened
        return ""
    try:
        httpx.Request("GET", base_url.rstrip("/") + "/models")
    except Exception as error:  # InvalidURL, idna's and the codec's own
        return one_line(str(error) or type(error).__name__, 200)
    return ""


def _parse_retry_after(retry_after: str | None) -> float:
    try:
        seconds = float(retry_after or 0)
        return seconds if 0 <= seconds < 86_400 else 0.0
    except ValueError:  # an HTTP date: our own waits are enough
        return 0.0


def _parse_json_object(text: str) -> dict[str, Any]:
    try:
        answer = parse_json(text, "answer", EngineError, constants=False)
    except EngineError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _server_error_message(text: str) -> str:
    """The server's error message as one line, without the key, which some servers echo."""
    body = _parse_json_object(text)
    inner = body.get("error")
    details = inner if isinstance(inner, dict) else body
    message = str(details.get("message") or body.get("detail") or text)
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        message = message.replace(key, "[key]")
    return one_line(message[:10_000], 300)
