"""How a question is asked and its answer read: the ``Method`` protocol, and the two methods of lm-eval.

In: a Question and its prompts' token ids, later the engine's Responses. Out: Requests, and one Prediction per
question. Knows nothing of files or engines. Chain of thought is in ``cot``, option rotation in ``rotations``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.letters import exact_match, read_letters
from kmmlu_fast.core.schema import (
    Adapter,
    Candidates,
    Continuation,
    Generation,
    Prediction,
    Question,
    Request,
    Response,
)
from kmmlu_fast.prompting.letter_forms import (
    EITHER,
    SPACED,
    form_delimiter,
    other_letter_form,
    sum_letter_forms,
)
from kmmlu_fast.prompting.predictions import make_prediction
from kmmlu_fast.prompting.prompts import Prompt, render_prompt, template_digest

# lm-eval tasks/kmmlu/direct/_direct_kmmlu_yaml: generation_kwargs.until
DIRECT_STOPS = ("Q:", "\n\n", "</s>", ".")
DIRECT_MAX_TOKENS = 16


class Method(Protocol):
    """One way to ask questions and read answers. Frozen and picklable: Ray sends instances to its actors."""

    @property
    def output_tokens(self) -> int:
        """The most tokens a rendered prompt may grow by."""
        ...

    @property
    def scored_forms(self) -> dict[str, tuple[int, ...]]:
        """Written form -> the letters' tokens, A first, that are read right after every rendered prompt."""
        ...

    @property
    def direct(self) -> Method | None:
        """The method that also asks without reasoning, whose prompts follow the first; else None."""
        ...

    def wording_digest(self, tokenizer: Any, *, thinking: bool = False, varied_options: bool = False) -> str:
        """sha256 (16 hex digits) that changes with any byte of the wording. ``thinking``: the flag.
        ``varied_options``: the wording for 2 to 10 options counts too.
        """
        ...

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        """Everything else that decides the answers: the method's part of a run's fingerprint, JSON-able."""
        ...

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        """Every prompt the question may need that does not depend on an answer; the first is digested."""
        ...

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        """The first requests; ``token_ids`` are the rendered prompts', in the same order."""
        ...

    def follow_up(self, response: Response) -> list[Request]:
        """The next requests, from the response alone; [] if none are needed."""
        ...

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        """The prediction from all responses of the question, in any order."""
        ...


def generation_decoding(
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    num_samples: int = 1,
    below: float | None = None,
) -> dict[str, Any]:
    """``decoding`` of a method that generates. Never rename the keys: finished runs hold them."""
    decoding: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "num_samples": num_samples,
        "cot_below": below,
    }
    if temperature > 0:
        decoding["seed"] = seed
    return decoding


@dataclass(frozen=True, slots=True)
class _SinglePromptMethod:
    """Shared by the methods below: one prompt, one output token unless they generate, no follow-up."""

    style: str

    @property
    def output_tokens(self) -> int:
        return 1

    @property
    def scored_forms(self) -> dict[str, tuple[int, ...]]:
        return {}

    @property
    def direct(self) -> None:
        return None

    def wording_digest(self, tokenizer: Any, *, thinking: bool = False, varied_options: bool = False) -> str:
        return template_digest(self.style, tokenizer, thinking=thinking)

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        return {}

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        return [render_prompt(question, exemplars, self.style, tokenizer)]

    def follow_up(self, response: Response) -> list[Request]:
        return []


@dataclass(frozen=True, slots=True)
class MultipleChoice(_SinglePromptMethod):
    """Letters' log-likelihoods from one prefill: all are in one next-token distribution (lm-eval ``kmmlu``).

    ``letter_ids``: one per option of the question with the most options; each question uses its own.
    ``other_ids``: the same letters in the other written form, read from the same prefill; () if they are not
    one token each. ``form``: the form that is scored; if it is EITHER, ``letter_ids`` are spaced.
    ``style_form``: what the prompt style scores by default; another form has another fingerprint.
    """

    letter_ids: tuple[int, ...]
    other_ids: tuple[int, ...] = ()
    form: str = SPACED
    style_form: str = SPACED

    @property
    def scored_forms(self) -> dict[str, tuple[int, ...]]:
        first = SPACED if self.form == EITHER else self.form
        return {first: self.letter_ids} | (
            {other_letter_form(first): self.other_ids} if self.other_ids else {}
        )

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        return {} if self.form == self.style_form else {"letter_form": self.form}

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        count = len(question.options)
        letters = Candidates(self.letter_ids[:count] + self.other_ids[:count])
        return [
            Request(
                question_id=question.question_id,
                stage="letters",
                token_ids=tuple(token_ids[0]),
                want=letters,
                adapter=adapter,
            )
        ]

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        (response,) = responses
        count = len(question.options)
        values = (response.logprobs[:count], response.logprobs[count:])
        forms = dict(zip(self.scored_forms, values, strict=False))
        logprobs = sum_letter_forms(*values) if self.form == EITHER else values[0]
        reading = read_letters(logprobs)
        return make_prediction(
            question,
            reading.letter,
            "loglikelihood",
            response.request.token_ids,
            logprobs=logprobs,
            forms=forms,
            margin=reading.margin,
            confidence=reading.confidence,
            output_tokens=1,
        )


@dataclass(frozen=True, slots=True)
class ContinuationChoice(_SinglePromptMethod):
    """The fallback if a letter is several tokens: each is scored as a continuation, one prefill per letter
    (lm-eval). ``form`` and ``style_form`` as in ``MultipleChoice``; its mass is not known.
    """

    form: str = SPACED
    style_form: str = SPACED

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        return {} if self.form == self.style_form else {"letter_form": self.form}

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        prompt = render_prompt(question, exemplars, self.style, tokenizer)
        delimiter = form_delimiter(self.form, self.style, tokenizer)
        texts = [prompt.text + delimiter + letter for letter in question.letters]
        return [prompt, *(Prompt(text, prompt.add_special_tokens) for text in texts)]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        context, *wholes = token_ids
        return [
            Request(
                question_id=question.question_id,
                stage=f"continuation-{letter}",
                token_ids=tuple(whole),
                want=Continuation(max(1, len(whole) - len(context))),
                adapter=adapter,
            )
            for letter, whole in zip(question.letters, wholes, strict=True)
        ]

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        by_stage = {response.request.stage: response for response in responses}
        ordered = [by_stage[f"continuation-{letter}"] for letter in question.letters]
        logprobs = [response.logprobs[0] for response in ordered]
        reading = read_letters(logprobs)
        first = ordered[0].request
        assert isinstance(first.want, Continuation)  # ``start`` asks for nothing else
        return make_prediction(
            question,
            reading.letter,
            "continuation",
            first.token_ids[: -first.want.num_tokens],
            logprobs=logprobs,
            margin=reading.margin,
            confidence=reading.confidence,
            output_tokens=0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateUntil(_SinglePromptMethod):
    """Generation and exact match (lm-eval ``kmmlu_direct``), or with ``pattern`` the letter in its first
    match; a text that matches no letter is unparsed.
    """

    max_tokens: int = DIRECT_MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()  # tokens to stop at besides the model's own
    stops: tuple[str, ...] = DIRECT_STOPS
    pattern: str = ""  # a regular expression whose first group is the letter
    removed: tuple[str, ...] = ()  # texts that are taken out before the pattern is looked for

    @property
    def output_tokens(self) -> int:
        return self.max_tokens

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        decoding = generation_decoding(self.max_tokens, self.temperature, self.top_p, self.seed)
        if self.stop_ids:
            decoding["stop_token_ids"] = list(self.stop_ids)
        if self.pattern:
            decoding["answer_rule"] = text_digest(repr((self.pattern, self.removed)))
        if self.stops != DIRECT_STOPS:
            decoding["stop"] = list(self.stops)
        return decoding

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        reasoning = bool(self.pattern)  # the model writes what it likes first
        return [render_prompt(question, exemplars, self.style, tokenizer, reasoning=reasoning)]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        text = Generation(
            max_tokens=max(2, self.max_tokens),
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stops,
            stop_ids=self.stop_ids,
        )
        return [
            Request(
                question_id=question.question_id,
                stage="generate",
                token_ids=tuple(token_ids[0]),
                want=text,
                adapter=adapter,
            )
        ]

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        (response,) = responses
        completion = response.completions[0]
        letter = self._read_letter(completion.text, question.letters)
        return make_prediction(
            question,
            letter,
            ("pattern" if self.pattern else "exact_match") if letter else None,
            response.request.token_ids,
            texts=[completion.text],
            output_tokens=len(completion.token_ids),
        )

    def _read_letter(self, text: str, letters: Sequence[str]) -> str | None:
        if not self.pattern:
            return exact_match(text, letters)
        for part in self.removed:
            text = text.replace(part, "")
        match = re.search(self.pattern, text)
        letter = match[1].strip().upper() if match and match[1] else ""
        return letter if letter in letters else None
