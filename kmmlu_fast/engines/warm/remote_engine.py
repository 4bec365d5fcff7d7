"""An ``Engine`` whose requests another process of the same user answers.

In: a connection to a warm engine whose turn it is, and a function that starts the same engine here. Out:
responses, as an engine here would give them. If the other process goes away in the middle, an engine is
started here and goes on with what is not answered yet. Imports neither torch nor vLLM. Knows nothing of
questions.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kmmlu_fast.core import errors
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.core.schema import Adapter, Request, Response
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.engines.counters import Counters, cache_hit_rate
from kmmlu_fast.engines.protocol import Engine, FollowUp, SwappingEngine
from kmmlu_fast.engines.warm.messages import (
    PULLED_AT_ONCE,
    PULLED_TOKENS,
    BadMessageError,
    Link,
    LinkLostError,
    decode_response,
    encode_request,
)
from kmmlu_fast.engines.warm.running import connect_to_worker

SILENT_SEC = 30.0  # after which a worker is asked whether it lives
ALIVE_SEC = 60.0  # in which it then answers, even while it imports libraries


def await_message(link: Link, path: Path) -> dict[str, Any]:
    """The next message, however long the process behind the socket ``path`` computes or reads, as long as it
    lives. LinkLostError if it is gone, or does not even say that it lives.
    """
    while True:
        try:
            return link.receive(SILENT_SEC)
        except TimeoutError:
            other = connect_to_worker(path)
            if other is None:
                raise LinkLostError("its process is gone") from None
            with contextlib.closing(other):
                try:
                    other.send({"do": "status"}, ALIVE_SEC)
                    other.receive(ALIVE_SEC)
                except TimeoutError:
                    raise LinkLostError("its process does not answer") from None


class WarmEngine:
    """An engine in another process, with this command as its only user until ``close``."""

    def __init__(
        self,
        link: Link,
        path: Path,
        facts: dict[str, Any],
        start_here: Callable[[], Engine],
        waited_sec: float,
    ) -> None:
        self._link: Link | None = link
        self._path, self._facts, self._start_here, self._waited_sec = path, facts, start_here, waited_sec
        self._here: SwappingEngine | None = None  # takes over if the other process ends
        self._adapter: Adapter | None = None
        self._counters = Counters()
        self._reply_due = False  # the other side waits for one

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        source = iter(requests)
        if self._link is None:
            yield from self._engine_here().generate(source, follow_up)
            return
        numbers, asked = itertools.count(1), dict[int, Request]()
        try:
            yield from self._generate_there(self._link, source, follow_up, numbers, asked)
            return
        except LinkLostError as error:
            self._lose(error)
        engine = self._engine_here()
        yield from engine.generate(itertools.chain(list(asked.values()), source), follow_up)

    def _generate_there(
        self,
        link: Link,
        source: Iterator[Request],
        follow_up: FollowUp | None,
        numbers: Iterator[int],
        asked: dict[int, Request],
    ) -> Iterator[Response]:
        """``asked``: by number, what was sent and is not answered yet."""
        try:
            yield from self._exchange(link, source, follow_up, numbers, asked)
        except LinkLostError:
            raise
        except _RemoteFailureError as failure:
            self._drop()
            raise failure.as_raised_there() from None
        except (Exception, GeneratorExit):
            self._stop_pass(link, follow_up is not None)
            raise
        except BaseException:  # the command ends
            self._drop()
            raise
        if asked:
            raise LinkLostError(f"it left {len(asked)} requests unanswered")

    def _exchange(
        self,
        link: Link,
        source: Iterator[Request],
        follow_up: FollowUp | None,
        numbers: Iterator[int],
        asked: dict[int, Request],
    ) -> Iterator[Response]:
        link.send({"do": "generate", "follows": follow_up is not None}, SILENT_SEC)
        while "ended" not in (message := self._receive(link)):
            if "failed" in message:
                raise _RemoteFailureError(message)
            if "pull" in message:
                self._reply_due = True
                self._send_requests(link, _take_some(source), numbers, asked)
                continue
            response, lost = self._read_answer(message, asked), None
            if follow_up is not None:
                self._reply_due = True
                more = follow_up(response)
                response = replace(response, followed_by=len(more))
                try:
                    self._send_requests(link, more, numbers, asked)
                except LinkLostError as error:  # not before the answer is delivered
                    lost = error
            yield response
            if lost is not None:
                raise lost

    def _read_answer(self, message: dict[str, Any], asked: dict[int, Request]) -> Response:
        number = message.get("answer")
        if type(number) is not int or number not in asked:
            raise LinkLostError("it answered what was not asked")
        response = decode_response(message, asked[number])
        del asked[number]
        self._counters.add(response)
        return response

    def _send_requests(
        self, link: Link, requests: Iterable[Request], numbers: Iterator[int], asked: dict[int, Request]
    ) -> None:
        rows = []
        for request in requests:
            number = next(numbers)
            asked[number] = request
            rows.append(encode_request(number, request))
        self._reply_due = False
        link.send({"requests": rows}, SILENT_SEC)

    def _stop_pass(self, link: Link, follows: bool) -> None:
        """The caller wants no more answers, or failed: the other side drops what runs."""
        try:
            if self._reply_due:
                link.send({"stop": True}, SILENT_SEC)
            while "ended" not in (message := self._receive(link)):
                if "failed" in message:
                    self._drop()
                    return
                if "pull" in message or follows:
                    link.send({"stop": True}, SILENT_SEC)
        except KmmluError:
            self._drop()
        self._reply_due = False

    def _receive(self, link: Link) -> dict[str, Any]:
        try:
            return await_message(link, self._path)
        except BadMessageError as error:
            raise LinkLostError(str(error)) from error

    def swap(self, adapter: Adapter | None) -> None:
        if self._link is not None:
            try:
                self._swap_there(self._link, adapter)
                self._adapter = adapter
                return
            except LinkLostError as error:
                self._adapter = None
                self._lose(error)
        engine = self._engine_here()
        self._adapter = None  # if it does not fit
        engine.swap(adapter)
        self._adapter = adapter

    def _swap_there(self, link: Link, adapter: Adapter | None) -> None:
        described = None
        if adapter is not None:
            described = {
                "name": adapter.name,
                "path": str(adapter.path.absolute()),
                "rank": adapter.rank,
                "digest": adapter.digest,
            }
        link.send({"do": "swap", "adapter": described}, SILENT_SEC)
        message = self._receive(link)
        if "failed" in message:
            self._adapter = None
            error = _RemoteFailureError(message).as_raised_there()
            if not isinstance(error, errors.AdapterError):
                self._drop()
            raise error

    def _engine_here(self) -> SwappingEngine:
        if self._here is None:
            engine = self._start_here()
            assert isinstance(engine, SwappingEngine)  # or it could not have been warm
            self._here = engine
            if self._adapter is not None:
                engine.swap(self._adapter)
        return self._here

    def _lose(self, error: LinkLostError) -> None:
        self._drop()
        log_note(
            f"engine: the warm engine (pid {self._facts['pid']}) is gone ({error}); this command starts its"
            " own and continues"
        )

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def stats(self) -> dict[str, Any]:
        if self._here is not None:
            own = self._here.stats()
            for name, count in self._counters.counts().items():  # of what was answered before
                own[name] = own.get(name, 0) + count
            own["prefix_cache_hit_rate"] = cache_hit_rate(
                own.get("prompt_tokens", 0), own.get("cached_tokens", 0)
            )
            return own
        known = self._facts.get("stats")
        fixed = known if isinstance(known, dict) else {}
        return {
            **fixed,
            "start_sec": round(self._waited_sec, 2),
            "warm": True,
            **self._counters.stats(),
        }

    def close(self) -> None:
        if self._link is not None:
            with contextlib.suppress(KmmluError):
                self._link.send({"do": "bye"}, 1.0)
            self._drop()
        if self._here is not None:
            self._here.close()


def _take_some(source: Iterator[Request]) -> list[Request]:
    """The next requests: some dozens, fewer if they are long; [] at the end."""
    taken: list[Request] = []
    tokens = 0
    for request in source:
        taken.append(request)
        tokens += len(request.token_ids)
        if len(taken) >= PULLED_AT_ONCE or tokens >= PULLED_TOKENS:
            break
    return taken


class _RemoteFailureError(Exception):
    """What the other process says that went wrong in the engine."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__()
        self._message = message

    def as_raised_there(self) -> KmmluError:
        kind = getattr(errors, str(self._message.get("failed")), None)
        if not (isinstance(kind, type) and issubclass(kind, KmmluError)):
            kind = EngineError
        return kind(one_line(str(self._message.get("text")), 2_000))
