"""One command's time with the warm engine, from the process that keeps it.

In: a connection and an engine. Out: answers, in exactly the order in which the engine would be asked and
would answer in the command's own process: requests are pulled, and follow-ups fetched, where the engine
itself does so. Returns when the command says goodbye; LinkLostError if it goes without. Knows nothing of
other commands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError, EngineError, KmmluError
from kmmlu_fast.core.schema import Adapter, Request, Response
from kmmlu_fast.engines.protocol import ReusableEngine
from kmmlu_fast.engines.warm.messages import (
    PULLED_AT_ONCE,
    BadMessageError,
    Link,
    LinkLostError,
    decode_request,
    encode_response,
)


class PassStoppedError(EngineError):
    """The command wants no more answers of this pass."""


class CommandSession:
    """Runs what one command asks for. ``patience_sec``: how long it may be silent."""

    def __init__(self, link: Link, engine: ReusableEngine, patience_sec: float) -> None:
        self._link, self._engine, self._patience_sec = link, engine, patience_sec

    def serve(self) -> None:
        """EngineError if the engine failed: it must not be used again."""
        while True:
            message = self._receive()
            match message.get("do"):
                case "generate":
                    self._generate(message.get("follows") is True)
                case "swap":
                    self._swap_to(_decode_adapter(message.get("adapter")))
                case "bye":
                    return
                case _:
                    raise BadMessageError("an unknown wish")

    def _receive(self) -> dict[str, Any]:
        try:
            return self._link.receive(self._patience_sec)
        except TimeoutError as error:
            raise LinkLostError(f"silent for {self._patience_sec:.0f} s") from error

    def _send(self, message: dict[str, Any]) -> None:
        self._link.send(message, self._patience_sec)

    def _generate(self, follows: bool) -> None:
        responses = self._engine.generate(self._pull_requests(), self._fetch_follow_ups if follows else None)
        try:
            for response in responses:
                if not follows:
                    self._send(encode_response(response))
        except PassStoppedError:
            pass
        except (LinkLostError, BadMessageError):
            raise
        except KmmluError as error:
            self._report_failure(error)
            raise
        finally:
            if isinstance(responses, Generator):  # the engine drops what runs
                responses.close()
        self._send({"ended": True})

    def _pull_requests(self) -> Iterator[Request]:
        """The command's requests, a few at a time; an empty list is the end of them."""
        while True:
            self._send({"pull": PULLED_AT_ONCE})
            pulled = self._take_requests()
            if not pulled:
                return
            yield from pulled

    def _fetch_follow_ups(self, response: Response) -> list[Request]:
        self._send(encode_response(response))
        return self._take_requests()

    def _take_requests(self) -> list[Request]:
        message = self._receive()
        if message.get("stop") is True:
            raise PassStoppedError("the command stopped this pass")
        rows = message.get("requests")
        if not isinstance(rows, list):
            raise BadMessageError("no list of requests")
        return [decode_request(row) for row in rows]

    def _swap_to(self, adapter: Adapter | None) -> None:
        try:
            self._engine.swap(adapter)
        except AdapterError as error:  # the engine holds the base
            self._report_failure(error)
            return
        except KmmluError as error:
            self._report_failure(error)
            raise
        self._send({"swapped": True})

    def _report_failure(self, error: KmmluError) -> None:
        with contextlib.suppress(LinkLostError):
            self._send({"failed": type(error).__name__, "text": str(error)})


def _decode_adapter(raw: Any) -> Adapter | None:
    """BadMessageError unless it is null or an adapter's name, path, rank and digest."""
    if raw is None:
        return None
    kinds = {"name": str, "path": str, "rank": int, "digest": str}
    if not isinstance(raw, dict) or any(type(raw.get(name)) is not kind for name, kind in kinds.items()):
        raise BadMessageError("an adapter is not described by its name, path, rank and digest")
    path = Path(raw["path"])
    if not path.is_absolute():
        raise BadMessageError("an adapter's path is not absolute")
    return Adapter(name=raw["name"], path=path, adapter_id=1, rank=raw["rank"], digest=raw["digest"])
