"""An engine that answers at once, from a hash of the tokens: for tests and for measuring the harness.

In: Requests. Out: Responses. Knows nothing of models or questions.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from kmmlu_fast.core.schema import (
    Adapter,
    Candidates,
    Completion,
    Continuation,
    Generation,
    Request,
    Response,
)
from kmmlu_fast.engines.protocol import FollowUp


class FakeEngine:
    """Answers at once; log-probabilities are a hash of the token ids and of the adapter's name.

    ``text`` is what every generation returns, or a function of the request.
    """

    def __init__(self, text: str | Callable[[Request], str] = "정답: A", max_in_flight: int = 64) -> None:
        self._text = text
        self._max_in_flight = max_in_flight
        self._prompt_tokens = 0
        self._requests = 0
        self._held: Adapter | None = None

    def swap(self, adapter: Adapter | None) -> None:
        self._held = adapter

    def start_afresh(self) -> None:
        self._held = None
        self._prompt_tokens = self._requests = 0

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        source = iter(requests)
        queue: deque[Request] = deque()
        exhausted = False
        while True:
            while not exhausted and len(queue) < self._max_in_flight:
                request = next(source, None)
                if request is None:
                    exhausted = True
                else:
                    queue.append(request)
            if not queue:
                return
            request = queue.popleft()
            response = self._answer(request)
            more = follow_up(response) if follow_up else []
            queue.extendleft(reversed(more))
            yield replace(response, followed_by=len(more)) if more else response

    def _answer(self, request: Request) -> Response:
        self._requests += 1
        self._prompt_tokens += len(request.token_ids)
        adapter = request.adapter or self._held
        name = adapter.name if adapter else ""
        digest = hashlib.blake2b(repr((request.token_ids, name)).encode(), digest_size=8).digest()
        draw = random.Random(digest)
        match request.want:
            case Continuation():
                return Response(request, logprobs=(-draw.uniform(0.1, 5.0),))
            case Candidates(token_ids):
                return Response(request, logprobs=_as_shares([-draw.uniform(0.1, 5.0) for _ in token_ids]))
            case Generation(num_samples=num_samples):
                text = self._text if isinstance(self._text, str) else self._text(request)
                completion = Completion(text, tuple(range(len(text))), "stop")
                return Response(request, completions=(completion,) * num_samples)

    def stats(self) -> dict[str, Any]:
        return {"engine": "fake", "requests": self._requests, "prompt_tokens": self._prompt_tokens}

    def close(self) -> None:
        pass


def _as_shares(values: list[float]) -> tuple[float, ...]:
    """The values, lowered together if their probabilities would sum to more than 0.9."""
    total = sum(map(math.exp, values))
    if total <= 0.9:
        return tuple(values)
    excess = math.log(total / 0.9)
    return tuple(value - excess for value in values)
