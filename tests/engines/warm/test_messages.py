"""Frames and records survive the wire bit for bit; whatever else comes is refused and never run."""

from __future__ import annotations

import math
import pickle
import socket
import struct
from collections.abc import Iterator

import pytest

from kmmlu_fast.core.schema import Candidates, Completion, Continuation, Generation, Request, Response, Want
from kmmlu_fast.engines.warm import messages
from kmmlu_fast.engines.warm.messages import (
    BadMessageError,
    Link,
    LinkLostError,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

WANTS = [
    Candidates((3, 1, 2)),
    Continuation(4),
    Generation(max_tokens=7, temperature=0.7, top_k=4, seed=2**53 + 1, stop=("\n", "\ud800"), stop_ids=(1,)),
    Generation(max_tokens=1, keep_special=True, include_stop=True),
]


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    ours, other = socket.socketpair()
    yield Link(ours), other
    ours.close()
    other.close()


@pytest.mark.parametrize("want", WANTS)
def test_requests_and_responses_arrive_as_they_were(want: Want) -> None:
    one, other = socket.socketpair()
    here, there = Link(one), Link(other)
    request = Request(question_id="법/1", stage="letters", token_ids=(5, 262143), want=want, carry=object())
    here.send(encode_request(9, request))
    arrived = decode_request(there.receive(5))
    assert arrived == Request(question_id="법/1", stage="letters", token_ids=(5, 262143), want=want, carry=9)
    answer = Response(
        arrived,
        logprobs=(-0.1, math.nextafter(-2.0, 0), -math.inf, 5e-324),
        completions=(Completion("정답 \udcff\x00", (1, 2), "length"),),
        cached_tokens=3,
    )
    there.send(encode_response(answer))
    response = decode_response(here.receive(5), request)
    assert response.request is request
    assert (response.logprobs, response.completions) == (answer.logprobs, answer.completions)
    assert response.cached_tokens == 3
    one.close()
    other.close()


def test_not_a_number_stays_one() -> None:
    request = Request(question_id="q", stage="s", token_ids=(1,), want=Continuation(1), carry=1)
    one, other = socket.socketpair()
    Link(one).send(encode_response(Response(request, logprobs=(math.nan,))))
    assert math.isnan(decode_response(Link(other).receive(5), request).logprobs[0])
    one.close()
    other.close()


def framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class _Trap:
    """Raises wherever it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(
    "data",
    [
        framed(b"\xff\xfe"),
        framed(b"[" * 200_000),
        framed(b"[1]"),
        framed(b"null"),
        framed(pickle.dumps(_Trap())),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", messages.MOST_BYTES + 1),
    ],
)
def test_what_is_no_message_is_refused(ends: tuple[Link, socket.socket], data: bytes) -> None:
    link, other = ends
    other.sendall(data)
    with pytest.raises(BadMessageError):
        link.receive(5)


def test_a_frame_that_stops_short_is_lost_or_waited_for(ends: tuple[Link, socket.socket]) -> None:
    link, other = ends
    whole = framed(b'{"a": 1}')
    other.sendall(whole[:7])
    with pytest.raises(TimeoutError):
        link.receive(0.01)
    other.sendall(whole[7:])
    assert link.receive(5) == {"a": 1}  # nothing of it was lost
    other.sendall(whole[:5])
    other.close()
    with pytest.raises(LinkLostError):
        link.receive(5)
    with pytest.raises(LinkLostError):
        link.send({"large": "x" * 5_000_000})


def test_too_long_a_message_is_not_sent(
    ends: tuple[Link, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MOST_BYTES", 10)
    with pytest.raises(BadMessageError, match="too long"):
        ends[0].send({"text": "0123456789"})


GOOD = encode_request(1, Request(question_id="q", stage="s", token_ids=(1,), want=Candidates((1,))))
TEXT = encode_request(1, Request(question_id="q", stage="s", token_ids=(1,), want=Generation(max_tokens=1)))


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {**GOOD, "number": True},
        {**GOOD, "number": "1"},
        {**GOOD, "token_ids": [1, 2.0]},
        {**GOOD, "token_ids": [True]},
        {**GOOD, "token_ids": "12"},
        {**GOOD, "question_id": None},
        {**GOOD, "want": None},
        {**GOOD, "want": {"kind": "Exec", "code": "1"}},
        {**GOOD, "want": {"kind": "Candidates"}},
        {**TEXT, "want": {**TEXT["want"], "more": 1}},
        {**TEXT, "want": {**TEXT["want"], "temperature": "0"}},
        {**TEXT, "want": {**TEXT["want"], "stop": [1]}},
    ],
)
def test_requests_of_another_form_are_refused(raw: object) -> None:
    with pytest.raises(BadMessageError):
        decode_request(raw if not isinstance(raw, dict) else {k: _listed(v) for k, v in raw.items()})


def _listed(value: object) -> object:
    """As JSON has it."""
    if isinstance(value, dict):
        return {name: _listed(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    "change", [{"logprobs": [1]}, {"logprobs": None}, {"completions": [["a"]]}, {"cached_tokens": None}]
)
def test_responses_of_another_form_are_refused(change: dict[str, object]) -> None:
    request = Request(question_id="q", stage="s", token_ids=(1,), want=Continuation(1), carry=1)
    good = encode_response(Response(request, logprobs=(-1.0,)))
    with pytest.raises(BadMessageError):
        decode_response({**good, **change}, request)
