"""Asks one model state all questions and groups the responses by question.

In: an engine, a method, questions with their token ids. Out: each prediction, appended to a sink as soon as
its question is complete. Knows neither vLLM nor files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from kmmlu_fast.core.progress import Meter
from kmmlu_fast.core.schema import Adapter, Prediction, Request, Response
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.machine.environment import describe_environment
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.tokens import TokenisedQuestion


class PredictionSink(Protocol):
    """Where finished predictions go (``runs.store.RunStore``)."""

    def append(self, prediction: Prediction) -> None: ...


def ask_questions(
    engine: Engine,
    asked: Sequence[TokenisedQuestion],
    method: Method,
    adapter: Adapter | None,
    sink: PredictionSink,
    label: str = "",
) -> dict[str, Any]:
    """Ask all questions and append each finished prediction. Returns seconds and rates of this pass."""
    questions = {item.question.question_id: item.question for item in asked}
    outstanding: dict[str, int] = {}
    responses: dict[str, list[Response]] = {}
    progress = AnswerProgress(len(asked), label)

    def requests() -> Iterator[Request]:
        for item in asked:
            first = method.start(item.question, item.token_id_lists(), adapter)
            outstanding[item.question.question_id] = len(first)
            responses[item.question.question_id] = []
            yield from first

    for response in engine.generate(requests(), method.follow_up):
        question_id = response.request.question_id
        responses[question_id].append(response)
        outstanding[question_id] += response.followed_by - 1
        if outstanding[question_id] == 0:
            del outstanding[question_id]
            prediction = method.finish(questions[question_id], responses.pop(question_id))
            sink.append(prediction)
            progress.add_prediction(prediction)
    progress.close()
    return progress.speed()


def time_direct_answers(
    engine: Engine, asked: Sequence[TokenisedQuestion], method: Method, adapter: Adapter | None
) -> float | None:
    """Seconds per question for direct answers alone, to show what reasoning costs; None if there are none.

    Measured on a twentieth of the questions (8 to 256), because direct and reasoning requests share the
    engine's batches in the pass itself.
    """
    direct = method.direct
    if direct is None or not asked:
        return None
    count = min(256, max(8, len(asked) // 20))
    chosen = asked[:: max(1, len(asked) // count)][:count]
    requests: list[Request] = []
    for item in chosen:
        requests += direct.start(item.question, item.token_id_lists()[1:], adapter)
    begun = time.monotonic()
    for _ in engine.generate(requests):
        pass
    return (time.monotonic() - begun) / len(chosen)


def describe_finish(engine_counters: dict[str, Any]) -> dict[str, Any]:
    """What a finished run records of its environment: machine, versions, time, the engine's counters."""
    return {
        **describe_environment(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "engine": engine_counters,
    }


class AnswerProgress:
    """Shows progress with the running accuracy, and counts questions and tokens of the pass."""

    def __init__(self, total: int, label: str) -> None:
        self._start = time.monotonic()
        self._meter = Meter(total, label)
        self._done = self._correct = self._prompt_tokens = self._output_tokens = 0

    def add_prediction(self, prediction: Prediction) -> None:
        self._done += 1
        self._correct += prediction.correct
        self._prompt_tokens += prediction.prompt_tokens
        self._output_tokens += prediction.output_tokens
        self._meter.update(self._done, self._accuracy_text())

    def close(self) -> None:
        self._meter.close(self._done, self._accuracy_text())

    def _accuracy_text(self) -> str:
        return f"accuracy {self._correct / self._done:.4f}" if self._done else ""

    def speed(self) -> dict[str, Any]:
        seconds = max(time.monotonic() - self._start, 1e-9)
        return {
            "questions": self._done,
            "seconds": round(seconds, 3),
            "questions_per_sec": round(self._done / seconds, 2),
            "prompt_tokens_per_sec": round(self._prompt_tokens / seconds, 1),
            "output_tokens_per_sec": round(self._output_tokens / seconds, 1),
        }
