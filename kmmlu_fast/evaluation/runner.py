"""One model state over all questions: requests out, responses grouped by question, predictions into the store.

In: an engine, a method, questions with their token ids. Out: every prediction appended to the store as soon as its question is complete.
Knows neither vLLM nor files. Progress goes to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from kmmlu_fast.asking.methods import Method
from kmmlu_fast.asking.tokens import Asked
from kmmlu_fast.core.schema import Adapter, Prediction, Request, Response
from kmmlu_fast.engines.protocol import Engine

_LINE_SEC = 10.0  # a new progress line this often where stderr is not a terminal


class Sink(Protocol):
    """Where finished predictions go (``store.RunStore``)."""

    def append(self, prediction: Prediction) -> None: ...


def run(engine: Engine, asked: Sequence[Asked], method: Method, adapter: Adapter | None, sink: Sink, label: str = "") -> dict[str, Any]:
    """Ask all, append each prediction as its question completes; returns seconds and counts of this pass."""
    questions = {item.question.question_id: item.question for item in asked}
    outstanding: dict[str, int] = {}
    responses: dict[str, list[Response]] = {}
    progress = Progress(len(asked), label)

    def requests() -> Iterator[Request]:
        for item in asked:
            first = method.start(item.question, item.lists(), adapter)
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
            progress.add(prediction)
    progress.close()
    return progress.speed()


class Progress:
    """Questions/s, time left and running accuracy on stderr: one moving line on a terminal, a line every 10 s elsewhere."""

    def __init__(self, total: int, label: str) -> None:
        self._total, self._label = total, label
        self._start = self._shown = time.monotonic()
        self._done = self._correct = self._prompt_tokens = self._output_tokens = 0
        self._tty = sys.stderr.isatty()

    def add(self, prediction: Prediction) -> None:
        self._done += 1
        self._correct += prediction.correct
        self._prompt_tokens += prediction.prompt_tokens
        self._output_tokens += prediction.output_tokens
        if time.monotonic() - self._shown > (0.5 if self._tty else _LINE_SEC):
            self._show("\r" if self._tty else "\n")

    def _show(self, end: str) -> None:
        self._shown = time.monotonic()
        rate = self._done / max(self._shown - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        print(
            f"{self._label}: {self._done}/{self._total} questions, {rate:.1f}/s, {left:.0f} s left, "
            f"accuracy {self._correct / self._done:.4f}",
            end=end, file=sys.stderr, flush=True,
        )  # fmt: skip

    def close(self) -> None:
        if self._done:
            self._show("\n")

    def speed(self) -> dict[str, Any]:
        seconds = max(time.monotonic() - self._start, 1e-9)
        return {
            "questions": self._done,
            "seconds": round(seconds, 3),
            "questions_per_sec": round(self._done / seconds, 2),
            "prompt_tokens_per_sec": round(self._prompt_tokens / seconds, 1),
            "output_tokens_per_sec": round(self._output_tokens / seconds, 1),
        }
