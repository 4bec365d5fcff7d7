"""Option rotation: the same question under several cyclic orders of its options, averaged per option, which
removes letter bias.

In: any method that reads letters from log-probabilities. Out: that method's own prediction (from the
unrotated order), with the debiased letter and log-probabilities added. Knows nothing of engines, and only the
protocol of the inner method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.core.letters import is_position_bound, normalize_logprobs, read_letters, rotate_question
from kmmlu_fast.core.schema import Adapter, Prediction, Question, Request, Response
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.predictions import prediction_logprobs
from kmmlu_fast.prompting.prompts import Prompt

ALL = 0  # as ``Rotations.count``


def rotation_shifts(question: Question, count: int) -> list[int]:
    """How many places the options are turned by in each of ``count`` cyclic orders; the first is 0."""
    if is_position_bound(question):
        return [0]
    options = len(question.options)
    count = options if count == ALL else min(count, options)
    return [i * options // count for i in range(count)]


@dataclass(frozen=True, slots=True)
class Rotations:
    """``inner`` asked under ``count`` cyclic orders (2: opposite ones; ALL: as many as there are options).

    Stages are ``rotation-<i>/<inner stage>``. A question whose options refer to other options by number or
    place ("all of the above") is asked once, unturned: turned, it would be another question. Its debiased
    letter is its raw one.
    """

    inner: Method
    count: int = 4

    @property
    def output_tokens(self) -> int:
        return self.inner.output_tokens

    @property
    def scored_forms(self) -> dict[str, tuple[int, ...]]:
        return self.inner.scored_forms

    @property
    def direct(self) -> None:
        return None

    def wording_digest(self, tokenizer: Any, *, thinking: bool = False, varied_options: bool = False) -> str:
        return self.inner.wording_digest(tokenizer, thinking=thinking, varied_options=varied_options)

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        decoding = {**self.inner.decoding(questions), "rotations": self.count}
        if self.count == ALL:  # the same prompts as with 4 must give the same fingerprint
            decoding["rotations"] = 4 if all(len(question.options) == 4 for question in questions) else "all"
        if any(map(is_position_bound, questions)):  # asked once, unturned, since 0.2: other answers
            decoding["position_bound"] = "unturned"
        return decoding

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        return [
            prompt
            for shift in rotation_shifts(question, self.count)
            for prompt in self.inner.render(rotate_question(question, shift), exemplars, tokenizer)
        ]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        shifts = rotation_shifts(question, self.count)
        num_prompts = len(token_ids) // len(shifts)  # per order
        requests = []
        for i, shift in enumerate(shifts):
            part = token_ids[i * num_prompts : (i + 1) * num_prompts]
            for request in self.inner.start(rotate_question(question, shift), part, adapter):
                requests.append(replace(request, stage=f"rotation-{i}/{request.stage}"))
        return requests

    def follow_up(self, response: Response) -> list[Request]:
        return []

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        shifts = rotation_shifts(question, self.count)
        groups: dict[int, list[Response]] = {i: [] for i in range(len(shifts))}
        for response in responses:
            order, _, stage = response.request.stage.removeprefix("rotation-").partition("/")
            groups[int(order)].append(replace(response, request=replace(response.request, stage=stage)))
        predictions = [
            self.inner.finish(rotate_question(question, shift), groups[i]) for i, shift in enumerate(shifts)
        ]
        sums = [0.0] * len(question.options)
        for shift, prediction in zip(shifts, predictions, strict=True):
            for i, value in enumerate(normalize_logprobs(prediction_logprobs(prediction))):
                sums[(i + shift) % len(sums)] += value
        averages = [value / len(shifts) for value in sums]
        return replace(
            predictions[0],
            debiased_prediction=read_letters(averages).letter,
            debiased_logprobs=averages,
            prompt_tokens=sum(prediction.prompt_tokens for prediction in predictions),
            output_tokens=sum(prediction.output_tokens for prediction in predictions),
        )
