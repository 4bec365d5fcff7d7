"""One replica on Ray: an engine in an actor's process, fed from all blocks that were sent to it.

In: blocks of Requests, and the follow-up function. Out: a block's Responses, complete and once. Knows nothing
of Ray itself.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

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
        self._block_of: dict[int, _Block] = {}
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
            self._block_of.update((id(request), block) for request in requests)
            self._waiting.extend(requests)
            self._changed.notify()
        block.done.wait()
        if block.error is not None:
            raise block.error
        return block.responses

    def _run_engine(self) -> None:
        try:
            engine = self._opener()
            self._opened.set()
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: bool(self._waiting))
                for response in engine.generate(self._pull_requests(), self._follow_up):
                    self._block_of.pop(id(response.request)).add_response(response)
        except BaseException as error:
            with self._changed:
                self._error = error
                for block in self._block_of.values():
                    block.fail(error)
            self._opened.set()

    def _pull_requests(self) -> Iterator[Request]:
        """Requests that wait or arrive meanwhile. When none waits, the engine drains and is called anew."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            yield request

    def _follow_up(self, response: Response) -> list[Request]:
        block = self._block_of[id(response.request)]
        more = block.follow_up(response) if block.follow_up else []
        block.add_requests(more)
        with self._changed:
            self._block_of.update((id(request), block) for request in more)
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
