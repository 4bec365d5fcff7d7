"""Requests in groups that one call to a server may carry.

In: Requests, pulled lazily, and follow-ups, which go first. Out: calls: neighbours that want the same of the
same model, one token each. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kmmlu_fast.core.schema import Generation, Request


class CallSource:
    """The calls still to be made. A text is a call of its own: it ends when it likes."""

    def __init__(self, requests: Iterable[Request], prompts_per_call: int) -> None:
        self._source = iter(requests)
        self._prompts_per_call = prompts_per_call
        self._follow_ups: deque[Request] = deque()  # before new requests, so that questions get finished
        self._pulled: Request | None = None  # from the source, and not yet in a call

    def add_follow_ups(self, requests: Iterable[Request]) -> None:
        """Let these go before new requests."""
        self._follow_ups.extend(requests)

    def peek(self) -> Request | None:
        """The next request; None if there is none now."""
        if self._follow_ups:
            return self._follow_ups[0]
        if self._pulled is None:
            self._pulled = next(self._source, None)
        return self._pulled

    def next_call(self, room: int) -> list[Request]:
        """The next requests, at most ``room``; [] if there is no room, or nothing to ask."""
        call: list[Request] = []
        while len(call) < min(room, self._prompts_per_call):
            request = self.peek()
            if request is None or (call and not _can_share_call(request, call[0])):
                break
            call.append(request)
            if self._follow_ups:
                self._follow_ups.popleft()
            else:
                self._pulled = None
        return call


def _can_share_call(request: Request, first: Request) -> bool:
    is_text = isinstance(request.want, Generation)
    return not is_text and request.want == first.want and request.adapter == first.adapter
