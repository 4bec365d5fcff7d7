"""Option rotation: the same question under several cyclic orders of its options, averaged per option, which
removes letter bias.

In: any method that reads letters from log-probabilities. Out: that method's own prediction (the raw one, from
the unrotated order), with the debiased letter and log-probabilities beside it. Knows nothing of engines, and
nothing of the method inside but its protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.asking.methods import Method, letters_of
from kmmlu_fast.asking.prompts import Prompt
from kmmlu_fast.core.letters import is_position_bound, log_softmax, read_letters, rotated
from kmmlu_fast.core.schema import Adapter, Prediction, Question, Request, Response

ALL = 0  # as ``Rotations.count``


@dataclass(frozen=True, slots=True)
class Rotations:
    """``inner`` asked under ``count`` cyclic orders (2: opposite ones; ALL: as many as the question has
    options).

    Stages are ``rotation-<i>/<inner stage>``. A question whose options speak of other options by number or
    place ("all of the above") is asked once, as it stands: turned, it would be another question. Its debiased
    letter is its raw one.
    """

    inner: Method
    count: int = 4

    def _shifts(self, question: Question) -> list[int]:
        if is_position_bound(question):
            return [0]
        options = len(question.options)
        count = options if self.count == ALL else min(self.count, options)
        return [i * options // count for i in range(count)]

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        return [
            prompt
            for shift in self._shifts(question)
            for prompt in self.inner.render(rotated(question, shift), exemplars, tokenizer)
        ]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        shifts = self._shifts(question)
        each = len(token_ids) // len(shifts)
        return [
            replace(request, stage=f"rotation-{i}/{request.stage}")
            for i, shift in enumerate(shifts)
            for request in self.inner.start(
                rotated(question, shift), token_ids[i * each : (i + 1) * each], adapter
            )
        ]

    def follow_up(self, response: Response) -> list[Request]:
        return []

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        shifts = self._shifts(question)
        groups: dict[int, list[Response]] = {i: [] for i in range(len(shifts))}
        for response in responses:
            order, _, stage = response.request.stage.removeprefix("rotation-").partition("/")
            groups[int(order)].append(replace(response, request=replace(response.request, stage=stage)))
        read = [self.inner.finish(rotated(question, shift), groups[i]) for i, shift in enumerate(shifts)]
        sums = [0.0] * len(question.options)
        for shift, prediction in zip(shifts, read, strict=True):
            for i, value in enumerate(log_softmax(letters_of(prediction))):
                sums[(i + shift) % len(sums)] += value
        averages = [value / len(shifts) for value in sums]
        return replace(
            read[0],
            debiased_prediction=read_letters(averages).letter,
            debiased_logprobs=averages,
            prompt_tokens=sum(prediction.prompt_tokens for prediction in read),
            output_tokens=sum(prediction.output_tokens for prediction in read),
        )
