"""What a command and the process that keeps an engine warm say to each other: JSON with its length before it.

In: requests and responses. Out: frames on a Unix socket, and what was read from one, checked field by field:
no code travels, only numbers and texts, and log-probabilities arrive bit for bit. Knows nothing of engines.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from dataclasses import asdict, fields
from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Candidates, Completion, Continuation, Generation, Request, Response, Want

MOST_BYTES = 64 << 20  # of a frame: a batch of prompts, or the texts of one question
MOST_GREETING_BYTES = 64 << 10  # of a frame from somebody who has not asked for the engine yet
PULLED_AT_ONCE = 64  # requests that travel together
PULLED_TOKENS = 200_000
_HEAD = struct.Struct(">I")
_READ_BYTES = 1 << 18


class LinkLostError(EngineError):
    """The other side closed the connection, died, or does not answer."""


class BadMessageError(EngineError):
    """The other side sent something else than the protocol has."""


class Link:
    """One end of a connection. Not for two threads at once."""

    def __init__(self, connection: socket.socket, most_bytes: int = MOST_BYTES) -> None:
        self._connection, self.most_bytes = connection, most_bytes
        self._buffer = bytearray()

    def send(self, message: dict[str, Any], timeout_sec: float | None = None) -> None:
        """LinkLostError if the other side is gone, or does not read for ``timeout_sec``."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MOST_BYTES:
            raise BadMessageError(f"a message of {len(data):,} bytes is too long (at most {MOST_BYTES:,})")
        try:
            self._connection.settimeout(timeout_sec)
            self._connection.sendall(_HEAD.pack(len(data)) + data)
        except (OSError, ValueError) as error:
            raise LinkLostError(f"the connection is lost ({error})") from error

    def receive(self, timeout_sec: float | None = None) -> dict[str, Any]:
        """The next message. TimeoutError if it is not whole after ``timeout_sec``, in which case it can be
        waited for again; LinkLostError if the other side is gone; BadMessageError if it is malformed.
        """
        end = None if timeout_sec is None else time.monotonic() + timeout_sec
        self._fill(_HEAD.size, end)
        (size,) = _HEAD.unpack_from(self._buffer)
        if size > self.most_bytes:
            raise BadMessageError(f"a message of {size:,} bytes is too long (at most {self.most_bytes:,})")
        self._fill(_HEAD.size + size, end)
        data = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
        del self._buffer[: _HEAD.size + size]
        try:
            message = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadMessageError("a message is not JSON") from error
        if not isinstance(message, dict):
            raise BadMessageError("a message is not an object")
        return message

    def _fill(self, size: int, end: float | None) -> None:
        while len(self._buffer) < size:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            try:
                self._connection.settimeout(left)
                data = self._connection.recv(_READ_BYTES)
            except TimeoutError:
                raise
            except (OSError, ValueError) as error:
                raise LinkLostError(f"the connection is lost ({error})") from error
            if not data:
                raise LinkLostError("the other side closed the connection")
            self._buffer += data

    def interrupt(self) -> None:
        """End the connection from another thread: both sides stop waiting."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()


def encode_request(number: int, request: Request) -> dict[str, Any]:
    """``number`` identifies it on this connection; the adapter and ``carry`` stay with the sender."""
    return {
        "number": number,
        "question_id": request.question_id,
        "stage": request.stage,
        "token_ids": request.token_ids,
        "want": {"kind": type(request.want).__name__, **asdict(request.want)},
    }


def decode_request(raw: Any) -> Request:
    """The request, which carries its number. BadMessageError if a field is missing or of another type."""
    if not isinstance(raw, dict):
        raise BadMessageError("a request is not an object")
    return Request(
        question_id=_checked(raw, "question_id", str),
        stage=_checked(raw, "stage", str),
        token_ids=_checked_tuple(raw, "token_ids", int),
        want=_decode_want(_checked(raw, "want", dict)),
        carry=_checked(raw, "number", int),
    )


def _decode_want(raw: dict[str, Any]) -> Want:
    match raw.get("kind"):
        case "Candidates":
            return Candidates(_checked_tuple(raw, "token_ids", int))
        case "Continuation":
            return Continuation(_checked(raw, "num_tokens", int))
        case "Generation":
            return _decode_generation(raw)
    raise BadMessageError("a request wants something unknown")


_LISTS: dict[str, type] = {"stop": str, "stop_ids": int}
_SCALARS: dict[str, tuple[type, ...]] = {
    "max_tokens": (int,),
    "num_samples": (int,),
    "temperature": (float, int),
    "top_p": (float, int),
    "top_k": (int,),
    "min_p": (float, int),
    "seed": (int, type(None)),
    "include_stop": (bool,),
    "keep_special": (bool,),
}


def _decode_generation(raw: dict[str, Any]) -> Generation:
    if set(raw) - {"kind"} != {field.name for field in fields(Generation)}:
        raise BadMessageError("a request for a text has other fields than this version knows")
    values: dict[str, Any] = {name: _checked_tuple(raw, name, kind) for name, kind in _LISTS.items()}
    values |= {name: _checked(raw, name, *kinds) for name, kinds in _SCALARS.items()}
    return Generation(**values)


def encode_response(response: Response) -> dict[str, Any]:
    """The response to a request that ``decode_request`` made."""
    return {
        "answer": response.request.carry,
        "logprobs": [float(value) for value in response.logprobs],
        "completions": [[each.text, each.token_ids, each.finish_reason] for each in response.completions],
        "cached_tokens": response.cached_tokens,
    }


def decode_response(raw: dict[str, Any], request: Request) -> Response:
    """The response to ``request``, which never left this side."""
    completions = []
    for row in _checked(raw, "completions", list):
        if not isinstance(row, list) or len(row) != 3:
            raise BadMessageError("a text is not a list of three")
        named = dict(zip(("text", "token_ids", "finish_reason"), row, strict=True))
        token_ids = _checked_tuple(named, "token_ids", int)
        completions.append(
            Completion(_checked(named, "text", str), token_ids, _checked(named, "finish_reason", str))
        )
    return Response(
        request,
        logprobs=_checked_tuple(raw, "logprobs", float),
        completions=tuple(completions),
        cached_tokens=_checked(raw, "cached_tokens", int),
    )


def _checked(raw: dict[str, Any], name: str, *kinds: type) -> Any:
    value = raw.get(name)
    if type(value) not in kinds:  # exactly: True is no number
        raise BadMessageError(f"{name} of a message is not {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _checked_tuple(raw: dict[str, Any], name: str, kind: type) -> tuple[Any, ...]:
    values = _checked(raw, name, list)
    if any(type(value) is not kind for value in values):
        raise BadMessageError(f"{name} of a message holds something else than {kind.__name__}")
    return tuple(values)
