"""Asks several model states along one random order in one engine, with interim looks, without draining it.

In: states (what each has answered), the questions in random order, an engine, a method. Out: predictions as
they finish; at the end of each look the caller decides which states continue. Within a look a state's
questions are asked subject by subject, so that few-shot prefixes are reused from the cache. Knows neither
vLLM nor how the decision is made.

A look ends when every continuing state has answered all questions up to its end. Requests of later looks are
in flight by then; if no state continues, they are dropped and the engine cancels them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kmmlu_fast.core.schema import Adapter, Prediction, Request, Response
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation.runner import PredictionSink
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.tokens import TokenisedQuestion

FIRST = 225  # questions of the first look; in a small exam an eighth, but at least LEAST
LEAST = 20
GROWTH = 1.5


@dataclass(slots=True, eq=False, kw_only=True)
class ModelStateProgress:
    """One model state, its answers, and how many leading questions of the order it has answered."""

    name: str
    adapter: Adapter | None
    sink: PredictionSink | None  # None: finished before, read-only
    order: Sequence[TokenisedQuestion]
    right: dict[str, bool] = field(default_factory=dict)
    margin: dict[str, float | None] = field(default_factory=dict)
    reach: int = 0  # questions answered from the start of the order without a gap
    asked_now: int = 0  # answers of this session
    prompt_tokens: int = 0
    output_tokens: int = 0

    def record_answer(self, question_id: str, right: bool, margin: float | None) -> None:
        self.right[question_id] = right
        self.margin[question_id] = margin
        while self.reach < len(self.order) and self.order[self.reach].question.question_id in self.right:
            self.reach += 1

    def follow_order(self, order: Sequence[TokenisedQuestion]) -> None:
        """Ask in another order from now on."""
        self.order, self.reach = order, 0
        while self.reach < len(order) and order[self.reach].question.question_id in self.right:
            self.reach += 1

    def add_prediction(self, prediction: Prediction) -> None:
        """Append a new prediction to the sink and count it; ignore one that is already known."""
        if self.sink is None or prediction.question_id in self.right:
            return
        self.sink.append(prediction)
        self.asked_now += 1
        self.prompt_tokens += prediction.prompt_tokens
        self.output_tokens += prediction.output_tokens
        self.record_answer(prediction.question_id, prediction.correct, prediction.margin)


def interim_sample_sizes(most: int, growth: float = GROWTH) -> Iterator[int]:
    """Questions asked by the end of each look: starts at ``FIRST``, grows by 1.5x, capped at ``most``."""
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
    """Ask until ``go_on()``, called at the end of each look, returns no state, or the last look is done.

    ``places``: each question's index in dataset order. ``served``: requests name their adapter (else the
    engine holds its weights).
    """
    waiting = [state for state in states if state.sink is not None]
    by_adapter = {state.adapter.name if served and state.adapter else None: state for state in waiting}
    continuing = list(waiting)

    def items() -> Iterator[tuple[ModelStateProgress, TokenisedQuestion]]:
        start = 0
        for end in looks:
            for state in list(continuing):
                look = sorted(state.order[start:end], key=lambda item: places[item.question.question_id])
                yield from ((state, item) for item in look if item.question.question_id not in state.right)
            start = end

    pending = list(looks)
    with contextlib.closing(_stream_predictions(engine, method, items(), by_adapter, served)) as answers:
        for state, prediction in answers:
            state.add_prediction(prediction)
            shown()
            reached = min((other.reach for other in continuing), default=0)
            if pending and reached >= pending[0]:
                pending = [end for end in pending if end > reached]
                kept = go_on()
                continuing[:] = [other for other in continuing if other in kept]
                if not continuing:
                    return


def _stream_predictions(
    engine: Engine,
    method: Method,
    items: Iterator[tuple[ModelStateProgress, TokenisedQuestion]],
    by_adapter: Mapping[str | None, ModelStateProgress],
    served: bool,
) -> Generator[tuple[ModelStateProgress, Prediction]]:
    """Each question's prediction as it finishes. Closing this closes the engine's stream, which cancels the
    requests in flight.
    """
    outstanding: dict[tuple[str, str], int] = {}
    responses: dict[tuple[str, str], list[Response]] = {}
    pending: dict[tuple[str, str], TokenisedQuestion] = {}

    def requests() -> Iterator[Request]:
        for state, item in items:
            key = (state.name, item.question.question_id)
            first = method.start(item.question, item.token_id_lists(), state.adapter if served else None)
            pending[key], responses[key], outstanding[key] = item, [], len(first)
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
                yield state, method.finish(pending.pop(key).question, responses.pop(key))
    finally:
        close = getattr(stream, "close", None)  # an iterator without it has nothing in flight
        if close is not None:
            close()
