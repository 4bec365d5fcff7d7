"""A hostile server: endless, slow, packed, deep, wrong and lying answers end in one EngineError, in bounded
time and memory.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.core.schema import Candidates, Continuation, Generation, Request
from kmmlu_fast.engines.server import client
from kmmlu_fast.engines.server.client import ServerClient
from kmmlu_fast.engines.server.completions import MALFORMED, parse_server_responses
from kmmlu_fast.engines.server.engine import ServerEngine

LETTERS = Request(question_id="Law/test/0", stage="letters", token_ids=(5, 6), want=Candidates((1, 2, 3, 4)))
TEXTS = Request(question_id="Law/test/0", stage="reason", token_ids=(5, 6), want=Generation(max_tokens=4))


def answer(**changes: Any) -> dict[str, Any]:
    """A good answer to LETTERS, TEXTS and the probe, with parts of its choice replaced."""
    top = {f"token_id:{i}": -1.0 - i for i in range(5)}
    choice = {
        "index": 0,
        "text": "A",
        "token_ids": [7],
        "finish_reason": "length",
        "logprobs": {"top_logprobs": [top]},
        **changes,
    }
    return {"choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}


def engine(reply: Callable[[httpx.Request], httpx.Response]) -> ServerEngine:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json={"data": [{"id": "tiny", "root": "/m"}]})
        return (
            httpx.Response(200, json=answer())
            if b"[0,1,2]" in request.content.replace(b" ", b"")
            else reply(request)
        )

    return ServerEngine(
        "http://x.test/v1", ["tiny"], attempts=2, first_wait_sec=0.0, transport=httpx.MockTransport(handle)
    )


def ask(reply: Callable[[httpx.Request], httpx.Response], request: Request = LETTERS) -> Any:
    made = engine(reply)
    try:
        return next(iter(made.generate([request])))
    finally:
        made.close()


def test_a_good_answer_is_read() -> None:
    assert ask(lambda _: httpx.Response(200, json=answer())).logprobs == (-2.0, -3.0, -4.0, -5.0)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "0.5", "1e400", "true", '"-1"', "null", "[]"]
)
def test_log_probabilities_that_cannot_be_are_not_scored(value: str) -> None:
    text = json.dumps(answer()).replace('"token_id:1": -2.0', f'"token_id:1": {value}')
    with pytest.raises(EngineError, match="without the requested values"):
        ask(lambda _: httpx.Response(200, content=text))


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": [-1]},
        {"token_ids": ["7"]},
        {"token_ids": list(range(50))},
        {"token_ids": None},
        {"text": 5},
        {"finish_reason": "\x1b[2J"},
        {"index": "0"},
    ],
)
def test_texts_of_wrong_types_and_counts(changes: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="without the requested values") as caught:
        ask(lambda _: httpx.Response(200, json=answer(**changes)), TEXTS)
    assert "\x1b" not in str(caught.value)


def test_deep_and_huge_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 100_000)
    for body, message in (
        (b"[" * 90_000, "without the requested values"),
        (b"x" * 100_001, "sent an answer of more than"),
        (b"", "without the requested values"),
    ):
        with pytest.raises(EngineError, match=message):
            ask(lambda _, body=body: httpx.Response(200, content=body))


def test_packed_answers_are_refused_unopened() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    with pytest.raises(EngineError, match="compresses its answers"):
        ask(
            lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(bomb))
        )


def test_the_key_is_never_shown_and_escapes_are_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-123")
    reply = {"error": {"message": "bad key sk-secret-123 \x1b]0;owned\x07 " + "x" * 10_000}}
    with pytest.raises(EngineError) as caught:
        ask(lambda _: httpx.Response(400, json=reply))
    assert (
        "sk-secret" not in str(caught.value)
        and "\x1b" not in str(caught.value)
        and len(str(caught.value)) < 700
    )


@pytest.mark.parametrize(
    "models",
    [{"data": [{"id": 5}]}, {"data": "x"}, {"data": [{"id": "\x1b[2J" + "y" * 9999}]}, {}, {"data": [[]]}],
)
def test_odd_model_lists(models: Any) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=models))
    with pytest.raises(EngineError) as caught:
        ServerEngine("http://x.test/v1", ["tiny"], attempts=1, first_wait_sec=0.0, transport=transport)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 600


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "index",
                        "usage",
                        "logprobs",
                        "top_logprobs",
                        "token_ids",
                        "text",
                        "token_id:1",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=15,
    )
)
def test_any_answer_is_read_or_malformed(document: Any) -> None:
    for request in (
        LETTERS,
        TEXTS,
        Request(question_id="q", stage="continuation", token_ids=(1, 2), want=Continuation(1)),
    ):
        try:
            answer = document if isinstance(document, dict) else {"choices": document}
            [response] = parse_server_responses([request], answer)
        except MALFORMED:
            continue
        assert all(value <= 1e-3 for value in response.logprobs)


class SlowServer:
    """Sends one byte of its answer every ``step_sec``, for ever."""

    def __init__(self, head: bytes, step_sec: float = 0.05) -> None:
        self._head, self._step_sec = head, step_sec
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open = True
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    def _serve(self) -> None:
        while self._open:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(self._head)
                while self._open:
                    connection.sendall(b"x")
                    time.sleep(self._step_sec)
            except OSError:
                return

    def close(self) -> None:
        self._open = False
        self._socket.close()


@pytest.fixture(
    params=[
        b"HTTP/1.1 200 OK\r\nx-slow: ",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ]
)
def slow(request: pytest.FixtureRequest) -> Iterator[SlowServer]:
    server = SlowServer(request.param)
    yield server
    server.close()


def test_an_answer_that_never_ends_is_given_up(slow: SlowServer) -> None:
    async def go() -> None:
        made = ServerClient(slow.url, 1, attempts=9, first_wait_sec=0.0, answer_sec=0.3)
        try:
            await made.send("POST", "completions", {})
        finally:
            await made.close()

    with pytest.raises(KmmluError) as caught:
        asyncio.run(asyncio.wait_for(go(), 60))
    assert "no whole answer within" in str(caught.value) or "no answer" in str(caught.value)
