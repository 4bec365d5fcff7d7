"""Chain of thought: the model reasons, the ladder reads its letter, and what cannot be read is forced after
the model's own reasoning.

In: a Question, the token ids of its prompts, later Responses. Out: Requests, and one Prediction a question.
Stages of a question:

    letters    the letters' log-probabilities without reasoning, in the very prompt of ``multiple_choice``: one prefill
    reason     ``num_samples`` generated solutions; with ``below``, only where the letters' margin is under it
    forced-<i> where sample i reads as nothing: its prompt + its own tokens + ``\\n정답：``, letters'
    log-probabilities (prefix cached)

So nothing is unparsed by construction; ``forced`` says where. Samples vote, ties go to the letter that
``letters`` found likelier. ``logprob_A``.. are those that the prediction was read from (of ``letters``, of
the one forced sample), and absent where a text was read; ``margin`` is always that of ``letters``, for it
tells where reasoning would have been worth it. Knows nothing of files or engines; the wording stands in
``cot_wording``.
"""  # noqa: E501

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.core.digests import text_digest, tokens_digest
from kmmlu_fast.core.letters import read_letters
from kmmlu_fast.core.schema import (
    OPTION_LETTERS,
    Adapter,
    Candidates,
    Completion,
    Generation,
    Prediction,
    Question,
    Request,
    Response,
)
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.prompting.answer_extraction import EXPLICIT, LADDER, STRICT, ExtractedAnswer, extract_answer
from kmmlu_fast.prompting.cot_wording import (
    FORCE_CUE,
    NEXT_QUESTION,
    final_answer_lines,
    load_instructions,
    subject_instruction,
)
from kmmlu_fast.prompting.methods import MultipleChoice, generation_decoding
from kmmlu_fast.prompting.predictions import make_prediction
from kmmlu_fast.prompting.prompts import (
    Prompt,
    find_prompt_style,
    render_prompt,
)

DEFAULT_MAX_TOKENS = 512
FORCED = "forced"


def sampling_seed(seed: int, question_id: str, stage: str) -> int:
    """31 bits from a stable hash: a resumed run, in any order, draws what the whole run would have drawn."""
    digest = hashlib.sha256(f"{seed}\x1f{question_id}\x1f{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True, slots=True)
class FollowUpContext:
    """What ``follow_up`` needs of the question, beside the response: it travels with the
    request (``Request.carry``).
    """

    options: tuple[str, ...]
    reason_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOfThought:
    """See the module. Made by ``build_method``; token ids only, so that it pickles small and
    needs no tokenizer after rendering.
    """

    style: str
    direct: (
        MultipleChoice | None
    )  # None where the tokenizer splits a letter: then there is no direct answer to compare with
    force_ids: tuple[int, ...]  # tokens of FORCE_CUE
    force_letter_ids: tuple[int, ...]  # as many as the longest question has options
    end_ids: tuple[int, ...] = ()  # end-of-turn tokens, cut off before forcing
    next_question_ids: tuple[int, ...] = ()  # tokens of the "next question" stop, cut off before forcing
    think_end_ids: tuple[int, ...] = ()
    max_tokens: int = DEFAULT_MAX_TOKENS
    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 42
    below: float | None = None  # nats
    thinking: bool = False

    @property
    def output_tokens(self) -> int:
        """What a prompt may grow by: the reasoning, and the forced answer after it."""
        return self.max_tokens + len(self.think_end_ids) + len(self.force_ids) + 1

    @property
    def letter_ids(self) -> None:
        return None

    def wording_digest(self, tokenizer: Any, *, thinking: bool = False, is_kmmlu: bool = True) -> str:
        return cot_wording_digest(self, tokenizer, is_kmmlu)

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        return generation_decoding(
            self.max_tokens, self.temperature, self.top_p, self.seed, self.num_samples, self.below
        )

    def reasoning_prompt(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> Prompt:
        """The exemplars keep their plain letters: KMMLU's dev split has no solutions, and none
        are made up.
        """
        data, style = load_instructions(), find_prompt_style(self.style)
        return render_prompt(
            question,
            exemplars,
            self.style,
            tokenizer,
            instruction=subject_instruction(question.subject, question.supercategory, question.letters),
            cue=data["chat_cue"] if style.chat else data["cue"],
            exemplar_cue=style.cue,
            thinking=self.thinking,
        )

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        direct = self.direct.render(question, exemplars, tokenizer) if self.direct else []
        return [self.reasoning_prompt(question, exemplars, tokenizer), *direct]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        reason_ids = tuple(token_ids[0])
        carried = FollowUpContext(question.options, reason_ids)
        letters = (
            [replace(r, carry=carried) for r in self.direct.start(question, token_ids[1:], adapter)]
            if self.direct
            else []
        )
        return (
            letters
            if self.below is not None
            else [*letters, self._reasoning_request(question.question_id, carried, adapter)]
        )

    def _reasoning_request(
        self, question_id: str, carried: FollowUpContext, adapter: Adapter | None
    ) -> Request:
        lines = final_answer_lines(self.style, OPTION_LETTERS[: len(carried.options)])
        stops = (
            () if self.thinking else lines if find_prompt_style(self.style).chat else (*lines, NEXT_QUESTION)
        )
        text = Generation(
            max_tokens=max(2, self.max_tokens),
            num_samples=self.num_samples,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=sampling_seed(self.seed, question_id, "reason") if self.temperature > 0 else None,
            stop=stops,
            include_stop=True,
        )
        carry = FollowUpContext(carried.options)
        return Request(
            question_id=question_id,
            stage="reason",
            token_ids=carried.reason_ids,
            want=text,
            adapter=adapter,
            carry=carry,
        )

    def follow_up(self, response: Response) -> list[Request]:
        request = response.request
        if request.stage == "letters":
            doubtful = self.below is not None and read_letters(response.logprobs).margin < self.below
            return (
                [self._reasoning_request(request.question_id, request.carry, request.adapter)]
                if doubtful
                else []
            )
        if request.stage != "reason":
            return []
        letters = Candidates(self.force_letter_ids[: len(request.carry.options)])
        return [
            Request(
                question_id=request.question_id,
                stage=f"forced-{i}",
                token_ids=(*request.token_ids, *self.forcing_ids(completion)),
                want=letters,
                adapter=request.adapter,
            )
            for i, completion in enumerate(response.completions)
            if self.read_completion(completion, request.carry.options).letter is None
        ]

    def read_completion(self, completion: Completion, options: Sequence[str]) -> ExtractedAnswer:
        """The ladder; of a text cut by its budget only an answer named as such counts, for its
        last sentence concludes nothing.
        """
        cut = completion.finish_reason == "length"
        ladder = {name: LADDER[name] for name in EXPLICIT} if cut else None
        return extract_answer(
            completion.text.removesuffix(NEXT_QUESTION), options, thinking=self.thinking, ladder=ladder
        )

    def forcing_ids(self, completion: Completion) -> tuple[int, ...]:
        """The sample's own tokens, without what ended them, and the cue."""
        ids = list(completion.token_ids)
        while ids and ids[-1] in self.end_ids:
            ids.pop()
        tail = len(self.next_question_ids)
        if tail and tuple(ids[-tail:]) == self.next_question_ids:
            del ids[-tail:]
        unclosed = self.thinking and "</think>" not in completion.text
        return (*ids, *(self.think_end_ids if unclosed else ()), *self.force_ids)

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        by_stage = {response.request.stage: response for response in responses}
        letters, reason = by_stage.get("letters"), by_stage.get("reason")
        direct = self.direct.finish(question, [letters]) if self.direct and letters else None
        if reason is None:
            if direct is None or letters is None:  # start() always asks one of the two
                raise ValueError(
                    f"{question.question_id}: neither letters nor reasoning among {sorted(by_stage)}"
                )
            return replace(
                direct,
                direct_prediction=direct.prediction,
                prompt_digest=tokens_digest(letters.request.carry.reason_ids),
            )
        readings: list[ExtractedAnswer] = []
        logprobs: tuple[float, ...] | None = None
        for i, completion in enumerate(reason.completions):
            reading = self.read_completion(completion, question.options)
            if reading.letter is None:
                logprobs = by_stage[f"forced-{i}"].logprobs
                reading = ExtractedAnswer(read_letters(logprobs).letter, FORCED)
            readings.append(reading)
        letter, share = majority_vote(
            [reading.letter or "" for reading in readings], letters.logprobs if letters else None
        )
        rung = min((r.rung or "" for r in readings if r.letter == letter), key=[*LADDER, FORCED].index)
        generated = sum(len(completion.token_ids) for completion in reason.completions)
        forced = sum(reading.rung == FORCED for reading in readings)
        prediction = make_prediction(
            question,
            letter,
            rung,
            reason.request.token_ids,
            forced=rung == FORCED,
            logprobs=logprobs if self.num_samples == 1 else None,
            margin=direct.margin if direct else None,
            confidence=share if self.num_samples > 1 else None,
            direct_prediction=direct.prediction if direct else None,
            sample_predictions=[reading.letter for reading in readings] if self.num_samples > 1 else None,
            texts=[completion.text for completion in reason.completions],
            output_tokens=generated + forced + (direct.output_tokens if direct else 0),
        )
        return replace(
            prediction, prompt_tokens=prediction.prompt_tokens + (direct.prompt_tokens if direct else 0)
        )


def majority_vote(letters: Sequence[str], logprobs: Sequence[float] | None) -> tuple[str, float]:
    """The most frequent letter and its share; a tie goes to the higher log-probability, without
    these to the earlier sample.
    """
    counts = Counter(letters)
    most = max(counts.values())
    tied = [letter for letter in counts if counts[letter] == most]  # in the order of the samples
    best = max(tied, key=lambda letter: logprobs[OPTION_LETTERS.index(letter)]) if logprobs else tied[0]
    return best, most / len(letters)


PROBE = Question(
    question_id="probe/test/0",
    subject="Math",
    supercategory="STEM",
    split="test",
    row=0,
    question="하나에 둘을 더하면?",
    options=("1", "2", "3", "4"),
    answer="C",
)


def cot_wording_digest(method: ChainOfThought, tokenizer: Any, is_kmmlu: bool = True) -> str:
    """sha256 (16 hex digits) of an invented question rendered for every subject, with its stops and cue:
    changes with any byte of them.

    For other exams than KMMLU also with every number of options.
    """
    questions = [replace(PROBE, subject=s.name, supercategory=s.supercategory) for s in SUBJECTS.values()]
    if not is_kmmlu:
        counts = range(2, len(OPTION_LETTERS) + 1)
        questions += [
            replace(PROBE, subject="", supercategory="", options=("1",) * count, answer="A")
            for count in counts
        ]
    texts = [prompt.text for question in questions for prompt in method.render(question, [PROBE], tokenizer)]
    wording = [texts, final_answer_lines(method.style), NEXT_QUESTION, FORCE_CUE, STRICT]
    return text_digest(json.dumps(wording, ensure_ascii=False))
