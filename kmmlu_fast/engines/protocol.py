"""The Engine protocol, and a fake one for tests and for measuring the harness.

In: an iterable of Requests, pulled lazily. Out: Responses, in the order in which they finish.
Knows nothing of KMMLU: neither what a question is nor what a letter means. The real engines stand in
``engine_vllm`` (in process), ``engine_ray`` and ``engine_server``; ``open_engine`` picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from kmmlu_fast.core.schema import Adapter, Request, Response

FollowUp = Callable[[Response], list[Request]]
"""Pure and picklable: what to ask next, given a response (a forced answer after reasoning,
say). [] = nothing.
"""


class Engine(Protocol):
    """Runs requests. One engine serves the base model and all adapters that it was opened with."""

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        """Yield one Response a request, and one for each that ``follow_up`` asks for, as they finish.

        ``requests`` is pulled only as fast as the engine takes work, so that memory stays bounded; follow-ups
        join the running batch at once. Raises EngineError where the engine cannot go on; what was yielded
        stays valid.
        """
        ...

    def stats(self) -> dict[str, Any]:
        """Counters since the start, with units in the keys (``prompt_tokens``,
        ``cached_tokens``, ``start_sec``, ...).
        """
        ...

    def close(self) -> None:
        """Free the device. Calling it twice is harmless."""
        ...


@runtime_checkable
class SwappingEngine(Engine, Protocol):
    """An engine whose weights can be replaced while it lives: one for the base and all adapters."""

    def swap(self, adapter: Adapter | None) -> None:
        """Answer requests without an adapter as the base with this one from now on (None: as the base again).

        AdapterError where the adapter does not fit: the engine then holds the base. EngineError while
        requests run, or where the weights could not be written.
        """
        ...
