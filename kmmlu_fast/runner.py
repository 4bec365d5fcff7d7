"""One model state over all questions: requests out, responses grouped by question, predictions into the store.

In: an engine, a method, questions with their token ids. Out: every prediction appended to the store as soon as its question is complete.
Knows neither vLLM nor files. Progress goes to stderr.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kmmlu_fast.engine import Engine
from kmmlu_fast.errors import ConfigError
from kmmlu_fast.prompts import Prompt, encode
from kmmlu_fast.schema import Adapter, Prediction, Question, Request, Response
from kmmlu_fast.scoring import Method

_PREPARED_AT_ONCE = 2048  # questions whose token ids exist as Python lists at a time
_LINE_SEC = 10.0  # a new progress line this often where stderr is not a terminal


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the token ids of its rendered prompts; packed, since five-shot prompts hold 19 million of them."""

    question: Question
    token_ids: list[array[int]]

    def lists(self) -> list[list[int]]:
        """The token ids as methods take them."""
        return [ids.tolist() for ids in self.token_ids]


class Sink(Protocol):
    """Where finished predictions go (``store.RunStore``)."""

    def append(self, prediction: Prediction) -> None: ...


def prepare(
    questions: Sequence[Question], exemplars: dict[str, list[Question]], method: Method, tokenizer: Any
) -> tuple[list[Asked], list[list[Prompt]]]:
    """Render and tokenise every prompt, subject by subject, so that prefixes are computed once; in large batches for the tokenizer."""
    rendered = [method.render(question, exemplars[question.subject], tokenizer) for question in questions]
    asked = []
    for start in range(0, len(questions), _PREPARED_AT_ONCE):
        some = slice(start, start + _PREPARED_AT_ONCE)
        ids = iter(encode(tokenizer, [prompt for prompts in rendered[some] for prompt in prompts]))
        asked += [Asked(q, [array("i", next(ids)) for _ in prompts]) for q, prompts in zip(questions[some], rendered[some], strict=True)]
    return asked, rendered


def check_lengths(asked: Sequence[Asked], max_model_len: int, output_tokens: int) -> None:
    """Refuse prompts that do not fit, naming the longest question: nothing is ever cut."""
    longest = max(asked, key=lambda item: max(map(len, item.token_ids)))
    tokens = max(map(len, longest.token_ids))
    if tokens + output_tokens > max_model_len:
        over = sum(max(map(len, item.token_ids)) + output_tokens > max_model_len for item in asked)
        raise ConfigError(
            f"{longest.question.question_id}: prompt of {tokens} tokens + {output_tokens} to generate is over the context of "
            f"{max_model_len} ({over} such questions); raise --max-model-len to {tokens + output_tokens}, or use fewer --num-fewshot "
            "or --max-tokens"
        )


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
