"""Several model states asked along one random order in one engine, look by look, without the engine ever
draining.

In: states (what each has answered), the questions in the order of asking, an engine, a method. Out:
predictions as they finish; at the end of each look the caller is asked which states go on. Within a look a
state's questions are asked subject by subject, so that few-shot prefixes are found again. Knows neither vLLM
nor what is decided.

A look ends where all states that go on have all answers up to there. Requests of the next looks are in flight
by then: where nothing goes on they are given up, and the engine cancels them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kmmlu_fast.core.schema import Adapter, Prediction, Request, Response
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.tokens import TokenisedQuestion

FIRST = 225  # questions of the first look; an eighth of a small exam, but not under LEAST
LEAST = 20
GROWTH = 1.5


class StateSink(Protocol):
    """Where finished predictions go (``runs.store.RunStore``)."""

    def append(self, prediction: Prediction) -> None: ...


@dataclass(slots=True, eq=False, kw_only=True)
class ModelStateProgress:
    """One model state, what it has answered, and how far from the beginning of the order without a gap."""

    name: str
    adapter: Adapter | None
    sink: StateSink | None  # None: finished before, only read
    order: Sequence[TokenisedQuestion]
    right: dict[str, bool] = field(default_factory=dict)
    margin: dict[str, float | None] = field(default_factory=dict)
    reach: int = 0  # questions answered from the beginning of the order on
    asked_now: int = 0  # answers that this session brought
    prompt_tokens: int = 0
    output_tokens: int = 0

    def record_answer(self, question_id: str, right: bool, margin: float | None) -> None:
        self.right[question_id] = right
        self.margin[question_id] = margin
        while self.reach < len(self.order) and self.order[self.reach].question.question_id in self.right:
            self.reach += 1

    def add_prediction(self, prediction: Prediction) -> None:
        """A prediction that has just come in; nothing if it was known."""
        if self.sink is None or prediction.question_id in self.right:
            return
        self.sink.append(prediction)
        self.asked_now += 1
        self.prompt_tokens += prediction.prompt_tokens
        self.output_tokens += prediction.output_tokens
        self.record_answer(prediction.question_id, prediction.correct, prediction.margin)


def interim_sample_sizes(most: int, growth: float = GROWTH) -> Iterator[int]:
    """Questions asked at the end of each look: 225 (fewer of few), then half as many again, ``most`` last."""
    end = float(min(FIRST, max(LEAST, most // 8)))
    while end < most:
        yield int(end)
        end *= growth
    yield most


def ask_in_passes(
    engine: Engine,
    method: Method,
    states: Sequence[ModelStateProgress],
    looks: Sequence[int],
    places: Mapping[str, int],
    go_on: Callable[[], Sequence[ModelStateProgress]],
    served: bool,
    shown: Callable[[], None] = lambda: None,
) -> None:
    """Ask until ``go_on()``, called at the end of each look, names none of the states, or the last look is
    done.

    ``places``: each question's place in dataset order. ``served``: requests name their adapter (else the
    engine's own weights hold it).
    """
    waiting = [state for state in states if state.sink is not None]
    by_adapter = {(state.adapter.name if served and state.adapter else None): state for state in waiting}
    wanted = list(waiting)

    def items() -> Iterator[tuple[ModelStateProgress, TokenisedQuestion]]:
        start = 0
        for end in looks:
            for state in list(wanted):
                look = sorted(state.order[start:end], key=lambda item: places[item.question.question_id])
                yield from ((state, item) for item in look if item.question.question_id not in state.right)
            start = end

    pending = list(looks)
    with contextlib.closing(_stream_predictions(engine, method, items(), by_adapter, served)) as answers:
        for state, prediction in answers:
            state.add_prediction(prediction)
            shown()
            reached = min((other.reach for other in wanted), default=0)
            if pending and reached >= pending[0]:
                pending = [end for end in pending if end > reached]
                kept = go_on()
                wanted[:] = [other for other in wanted if other in kept]
                if not wanted:
                    return


def _stream_predictions(
    engine: Engine,
    method: Method,
    items: Iterator[tuple[ModelStateProgress, TokenisedQuestion]],
    by_adapter: Mapping[str | None, ModelStateProgress],
    served: bool,
) -> Generator[tuple[ModelStateProgress, Prediction]]:
    """Each question's prediction as it finishes; closing this closes the engine's stream, which gives up what
    is in flight.
    """
    outstanding: dict[tuple[str, str], int] = {}
    responses: dict[tuple[str, str], list[Response]] = {}
    known: dict[tuple[str, str], TokenisedQuestion] = {}

    def requests() -> Iterator[Request]:
        for state, item in items:
            key = (state.name, item.question.question_id)
            first = method.start(item.question, item.token_id_lists(), state.adapter if served else None)
            known[key], responses[key], outstanding[key] = item, [], len(first)
            yield from first

    stream = engine.generate(requests(), method.follow_up)
    try:
        for response in stream:
            request = response.request
            state = by_adapter[request.adapter.name if request.adapter else None]
            key = (state.name, request.question_id)
            responses[key].append(response)
            outstanding[key] += response.followed_by - 1
            if outstanding[key] == 0:
                del outstanding[key]
                yield state, method.finish(known.pop(key).question, responses.pop(key))
    finally:
        close = getattr(stream, "close", None)  # a generator's; an iterator without it has nothing in flight
        if close is not None:
            close()
