"""One replica on Ray: an engine in an actor's process, fed from all blocks that were sent to it.

In: blocks of Requests, and the follow-up function. Out: a block's Responses, complete and once. Knows nothing
of Ray itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Request, Response
from kmmlu_fast.engines.protocol import Engine, FollowUp


class Replica:
    """The actor: one engine, and one thread that feeds it from all open blocks, so that its batch stays full
    between blocks.

    Only that thread opens and uses the engine (OpenMP's settings belong to a thread). ``run`` may be called
    again for a block that was lost with an earlier process: it depends on its arguments alone.
    """

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self._opener = opener
        self._error: BaseException | None = None
        self._opened = threading.Event()
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()
        # by id() of the Request: keys repeat between the base model and adapters
        self._open: dict[int, _Block] = {}
        self._running = False  # the engine has requests
        threading.Thread(target=self._run_engine, name="kmmlu-replica", daemon=True).start()

    def wait_until_open(self) -> int:
        """Wait until the engine is open; return the process id."""
        self._opened.wait()
        if self._error is not None:
            raise self._error
        return os.getpid()

    def run(self, requests: list[Request], follow_up: FollowUp | None) -> list[Response]:
        """Responses to the requests and to all their follow-ups."""
        self.wait_until_open()
        block = _Block(requests, follow_up)
        with self._changed:
            if self._error is not None:
                raise self._error
            self._open.update((id(request), block) for request in requests)
            self._waiting.extend(requests)
            self._changed.notify_all()
        block.done.wait()
        if block.error is not None:
            raise block.error
        return block.responses

    def abandon_blocks(self, timeout_sec: float = 10.0) -> None:
        """Drop all open blocks: their callers get an error. Returns once the engine has stopped computing
        them, which it does at its next answer, or after ``timeout_sec``.
        """
        with self._changed:
            blocks = {id(block): block for block in self._open.values()}
            self._open.clear()
            self._waiting.clear()
            for block in blocks.values():
                block.fail(EngineError("the caller stopped reading the answers"))
            self._changed.wait_for(lambda: not self._running, timeout_sec)

    def _run_engine(self) -> None:
        try:
            engine = self._opener()
            self._opened.set()
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: bool(self._waiting))
                    self._running = True
                self._answer_requests(engine)
                with self._changed:
                    self._running = False
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                for block in self._open.values():
                    block.fail(error)
            self._opened.set()

    def _answer_requests(self, engine: Engine) -> None:
        """Answer what waits, until nobody waits for an answer. Closing the engine's generator aborts what
        still runs for abandoned blocks.
        """
        with contextlib.closing(engine.generate(self._pull_requests(), self._follow_up)) as responses:  # type: ignore[type-var]
            for response in responses:
                with self._changed:
                    block = self._open.pop(id(response.request), None)
                    awaited = bool(self._open)
                if block is not None:
                    block.add_response(response)
                elif not awaited:
                    break

    def _pull_requests(self) -> Iterator[Request]:
        """Requests that wait or arrive meanwhile. When none waits, the engine drains and is called anew."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            yield request

    def _follow_up(self, response: Response) -> list[Request]:
        with self._changed:
            block = self._open.get(id(response.request))
        if block is None:  # abandoned
            return []
        more = block.follow_up(response) if block.follow_up else []
        block.add_requests(more)
        with self._changed:
            self._open.update((id(request), block) for request in more)
        return more


class _Block:
    """A block's responses until all have arrived. Holds its requests, so that their id() stays unique."""

    def __init__(self, requests: list[Request], follow_up: FollowUp | None) -> None:
        self.requests = list(requests)
        self.follow_up = follow_up
        self.responses: list[Response] = []
        self.error: BaseException | None = None
        self.done = threading.Event()

    def add_requests(self, more: list[Request]) -> None:
        self.requests += more

    def add_response(self, response: Response) -> None:
        self.responses.append(response)
        if len(self.responses) == len(self.requests):
            self.done.set()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done.set()
