"""The Engine protocol.

In: an iterable of Requests, pulled lazily. Out: Responses, in the order in which they finish.
Knows nothing of KMMLU: neither what a question is nor what a letter means. The engines are in the folders
``vllm``, ``hf``, ``ray``, ``server`` and ``llama_cpp``; ``factory.open_engine`` picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from kmmlu_fast.core.schema import Adapter, Request, Response

FollowUp = Callable[[Response], list[Request]]
"""The requests that a response leads to, such as a forced answer after reasoning. Pure and picklable."""


class Engine(Protocol):
    """Runs requests. One engine serves the base model and all adapters that it was opened with."""

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        """Yield one Response per request, and one per request of ``follow_up``, as they finish.

        ``requests`` is pulled only as fast as the engine takes work, so memory stays bounded; follow-ups
        join the running batch at once. Raises EngineError if the engine cannot go on; the responses yielded
        before stay valid.
        """
        ...

    def stats(self) -> dict[str, Any]:
        """Counters since the start, with units in the keys: ``prompt_tokens``, ``start_sec``, ..."""
        ...

    def close(self) -> None:
        """Free the device. Calling it twice is harmless."""
        ...


@runtime_checkable
class SwappingEngine(Engine, Protocol):
    """An engine whose weights can be replaced while it runs: one for the base and all adapters."""

    def swap(self, adapter: Adapter | None) -> None:
        """Answer requests without an adapter with this one from now on (None: with the base).

        AdapterError if the adapter does not fit: the engine then holds the base. EngineError while
        requests run, or if the weights could not be written.
        """
        ...


@runtime_checkable
class ReusableEngine(SwappingEngine, Protocol):
    """An engine that can be as it was after its start, for the next user of it (``warm``)."""

    def start_afresh(self) -> None:
        """Hold the base's weights, and nothing of earlier requests. EngineError if that fails."""
        ...
