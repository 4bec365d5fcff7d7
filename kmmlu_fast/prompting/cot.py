"""Chain of thought: the model reasons and the ladder reads its letter; an unreadable answer is forced after
the model's own reasoning.

In: a Question, the token ids of its prompts, later Responses. Out: Requests, and one Prediction per question.
Knows nothing of files or engines; the wording is in ``cot_wording``. Stages of a question:

    letters     the letters' log-probabilities without reasoning, after the prompt of ``multiple_choice``:
                one prefill
    reason      ``num_samples`` generated solutions; with ``below``, only if the letters' margin is under it
    forced-<i>  if sample i cannot be read: the letters' log-probabilities after its prompt + its own
                tokens + ``\\n정답：`` (prefix cached)
    reason-<n>  with ``vote_stopping``: further samples after the first n, until the vote is settled
    budget-<b>-<i>  with ``budgets``: the same for sample i cut after b tokens, whatever it says by then

So no answer is unparsed, and ``forced`` marks those that were forced. Samples vote; a tie goes to the letter
that is likelier in ``letters``. ``logprob_A``.. are those the prediction was read from (of ``letters``, or of
the one forced sample), and absent if a text was read. ``margin`` is always that of ``letters``, because it
shows where reasoning pays off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.core.digests import tokens_digest
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
from kmmlu_fast.prompting.answer_extraction import EXPLICIT, LADDER, ExtractedAnswer, extract_answer
from kmmlu_fast.prompting.chain_cuts import ThoughtMarks
from kmmlu_fast.prompting.cot_digest import cot_wording_digest
from kmmlu_fast.prompting.cot_wording import (
    NEXT_QUESTION,
    final_answer_lines,
    load_instructions,
    subject_instruction,
)
from kmmlu_fast.prompting.methods import MultipleChoice, generation_decoding
from kmmlu_fast.prompting.predictions import make_prediction
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.prompts import Prompt, render_prompt
from kmmlu_fast.prompting.reasoning_parsers import ANY_PARSER, ReasoningParser, strip_texts
from kmmlu_fast.prompting.vote_stopping import VoteStopping, count_samples_to_draw, majority_vote

DEFAULT_MAX_TOKENS = 512
FORCED = "forced"
REASON = "reason"


def sampling_seed(seed: int, question_id: str, stage: str) -> int:
    """31 bits from a stable hash: a resumed run, in any order, draws what an uninterrupted run would draw."""
    digest = hashlib.sha256(f"{seed}\x1f{question_id}\x1f{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True, slots=True)
class FollowUpContext:
    """What ``follow_up`` needs besides the response; it travels with the request (``Request.carry``).

    With ``vote_stopping``, ``votes`` are the letters of the samples drawn so far, None for one that is still
    to be forced after the tokens in ``unread``, which are in the same order.
    """

    options: tuple[str, ...]
    reason_ids: tuple[int, ...] = ()
    votes: tuple[str | None, ...] = ()
    unread: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOfThought:
    """See the module. Made by ``build_chain_of_thought``. Holds token ids only, so it pickles small and needs
    no tokenizer after rendering.
    """

    style: str
    direct: MultipleChoice | None  # None if the tokenizer splits a letter: no direct answer to compare with
    force_ids: tuple[int, ...]  # tokens of FORCE_CUE
    force_letter_ids: tuple[int, ...]  # one per option of the question with the most options
    end_ids: tuple[int, ...] = ()  # end-of-turn tokens, cut off before forcing
    next_question_ids: tuple[int, ...] = ()  # tokens of the "next question" stop, cut off before forcing
    think_end_ids: tuple[int, ...] = ()  # tokens that end an unfinished thought
    max_tokens: int = DEFAULT_MAX_TOKENS
    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 42
    below: float | None = None  # nats
    vote_stopping: VoteStopping = "none"
    budgets: tuple[int, ...] = ()  # tokens, ascending, each below max_tokens
    thought_marks: ThoughtMarks = ThoughtMarks()  # noqa: RUF009 - frozen
    thinking: bool = False  # the model may think first: no stop strings, which a thought could hold
    thinking_flag: bool = False  # whether --thinking was given; a template may open a thought without it
    parser: ReasoningParser = ANY_PARSER
    in_thought: bool = False  # a text that closes no thought is one
    parser_matters: bool = False  # texts are read otherwise than by the thinking switch alone
    special_texts: tuple[str, ...] = ()  # not empty: texts are written with their special tokens
    stop_ids: tuple[int, ...] = ()  # tokens to stop at besides the model's own

    @property
    def output_tokens(self) -> int:
        """Tokens a prompt may grow by: the reasoning, and the forced answer after it."""
        return self.max_tokens + len(self.think_end_ids) + len(self.force_ids) + 1

    @property
    def scored_forms(self) -> dict[str, tuple[int, ...]]:
        return {}

    def wording_digest(self, tokenizer: Any, *, thinking: bool = False, varied_options: bool = False) -> str:
        return cot_wording_digest(self, tokenizer, varied_options)

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        decoding = generation_decoding(
            self.max_tokens, self.temperature, self.top_p, self.seed, self.num_samples, self.below
        )
        if self.parser_matters:
            decoding["reasoning_parser"] = self.parser.name
        elif self.thinking and not self.thinking_flag:
            decoding["open_thought"] = self.parser.closers[0]
        if self.stop_ids:
            decoding["stop_token_ids"] = list(self.stop_ids)
        later = {"top_k": self.top_k, "min_p": self.min_p, "thinking_budgets": list(self.budgets)}
        decoding |= {name: value for name, value in later.items() if value}
        if self.vote_stopping != "none":
            decoding["vote_stopping"] = self.vote_stopping
        return decoding

    def reasoning_prompt(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> Prompt:
        """The exemplars keep their plain letters: KMMLU's dev split has no solutions, and we invent none."""
        wording, style = load_instructions(), find_prompt_style(self.style)
        return render_prompt(
            question,
            exemplars,
            self.style,
            tokenizer,
            instruction=subject_instruction(question.subject, question.supercategory, question.letters),
            cue=wording["chat_cue"] if style.chat else wording["cue"],
            exemplar_cue=style.cue,
            thinking=self.thinking_flag,
            reasoning=True,
        )

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        direct = self.direct.render(question, exemplars, tokenizer) if self.direct else []
        return [self.reasoning_prompt(question, exemplars, tokenizer), *direct]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        context = FollowUpContext(question.options, tuple(token_ids[0]))
        requests: list[Request] = []
        if self.direct:
            letters = self.direct.start(question, token_ids[1:], adapter)
            requests += [replace(request, carry=context) for request in letters]
        if self.below is None:
            requests.append(self._reasoning_request(question.question_id, context, adapter))
        return requests

    def _reasoning_request(
        self, question_id: str, context: FollowUpContext, adapter: Adapter | None
    ) -> Request:
        """The next round of samples; there is only one unless the vote may stop it."""
        stops: tuple[str, ...] = ()
        if not self.thinking:
            stops = final_answer_lines(self.style, OPTION_LETTERS[: len(context.options)])
            if not find_prompt_style(self.style).chat:
                stops = (*stops, NEXT_QUESTION)
        drawn = len(context.votes)
        stage = f"reason-{drawn}" if drawn else REASON
        text = Generation(
            max_tokens=max(2, self.max_tokens),
            num_samples=count_samples_to_draw(context.votes, self.num_samples, self.vote_stopping),
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=sampling_seed(self.seed, question_id, stage) if self.temperature > 0 else None,
            stop=stops,
            include_stop=True,
            stop_ids=self.stop_ids,
            keep_special=bool(self.special_texts),
        )
        return Request(
            question_id=question_id,
            stage=stage,
            token_ids=context.reason_ids,
            want=text,
            adapter=adapter,
            carry=FollowUpContext(context.options, votes=context.votes),
        )

    def follow_up(self, response: Response) -> list[Request]:
        request = response.request
        if request.stage == "letters":
            is_doubtful = self.below is not None and read_letters(response.logprobs).margin < self.below
            if not is_doubtful:
                return []
            return [self._reasoning_request(request.question_id, request.carry, request.adapter)]
        if is_reason_stage(request.stage):
            return self._after_samples(response)
        if request.stage.startswith("forced-") and request.carry is not None:
            place, letter = request.carry.votes.index(None), read_letters(response.logprobs).letter
            votes = (*request.carry.votes[:place], letter, *request.carry.votes[place + 1 :])
            context = replace(request.carry, votes=votes, unread=request.carry.unread[1:])
            return self._next_vote(request, context)
        return []

    def _after_samples(self, response: Response) -> list[Request]:
        """Letters to be forced, of whole texts and of cut ones; with ``vote_stopping`` also more samples."""
        request, context = response.request, response.request.carry
        drawn, count = len(context.votes), len(context.options)
        letters = [self.read_completion(each, context.options).letter for each in response.completions]
        texts = list(enumerate(response.completions, drawn))
        unread = [
            (place, (*request.token_ids, *self.forcing_ids(completion)))
            for (place, completion), letter in zip(texts, letters, strict=True)
            if letter is None
        ]
        requests = [
            self._forced_request(request, f"budget-{budget}-{place}", ids, count)
            for place, completion in texts
            for budget, ids in self._cut_prompts(request, completion)
        ]
        if self.vote_stopping == "none":
            return requests + [
                self._forced_request(request, f"forced-{place}", ids, count) for place, ids in unread
            ]
        context = FollowUpContext(
            context.options,
            request.token_ids,
            votes=(*context.votes, *letters),
            unread=tuple(ids for _, ids in unread),
        )
        return requests + self._next_vote(request, context)

    def _next_vote(self, request: Request, context: FollowUpContext) -> list[Request]:
        """What the vote needs next: the letter of a text that could not be read, more samples, or nothing."""
        if context.unread:
            stage = f"forced-{context.votes.index(None)}"
            forced = self._forced_request(request, stage, context.unread[0], len(context.options))
            return [replace(forced, carry=context)]
        if not count_samples_to_draw(context.votes, self.num_samples, self.vote_stopping):
            return []
        return [self._reasoning_request(request.question_id, context, request.adapter)]

    def _forced_request(
        self, request: Request, stage: str, token_ids: tuple[int, ...], count: int
    ) -> Request:
        letters = Candidates(self.force_letter_ids[:count])
        return replace(request, stage=stage, token_ids=token_ids, want=letters, carry=None)

    def _cut_prompts(self, request: Request, completion: Completion) -> list[tuple[int, tuple[int, ...]]]:
        """Each budget that cuts the text, and its prompt + the text's first tokens + the cue."""
        cuts = []
        for budget in self.budgets:
            if budget < len(completion.token_ids):
                ids = completion.token_ids[:budget]
                is_open = bool(self.think_end_ids) and self.thought_marks.is_open(ids, self.in_thought)
                end = self.think_end_ids if is_open else ()
                cuts.append((budget, (*request.token_ids, *ids, *end, *self.force_ids)))
        return cuts

    def read_completion(self, completion: Completion, options: Sequence[str]) -> ExtractedAnswer:
        """The ladder's reading. In a text cut off by its budget only an explicit answer counts: its last
        sentence is not a conclusion.
        """
        is_cut = completion.finish_reason == "length"
        ladder = {name: LADDER[name] for name in EXPLICIT} if is_cut else None
        answer = self.find_answer(completion.text)
        if answer is None:
            return ExtractedAnswer(None, None)
        return extract_answer(answer.removesuffix(NEXT_QUESTION), options, ladder=ladder)

    def find_answer(self, text: str) -> str | None:
        """A generated text without its thoughts and special tokens; None if a thought is not finished."""
        answer = self.parser.find_answer(text, self.in_thought)
        return None if answer is None else strip_texts(answer, self.special_texts)

    def forcing_ids(self, completion: Completion) -> tuple[int, ...]:
        """The sample's own tokens without their end-of-turn or stop tokens, then the cue."""
        ids = list(completion.token_ids)
        while ids and ids[-1] in self.end_ids:
            ids.pop()
        tail = len(self.next_question_ids)
        if tail and tuple(ids[-tail:]) == self.next_question_ids:
            del ids[-tail:]
        if self.think_end_ids and self.find_answer(completion.text) is None:
            ids += self.think_end_ids
        return (*ids, *self.force_ids)

    def finish(self, question: Question, responses: list[Response]) -> Prediction:
        by_stage = {response.request.stage: response for response in responses}
        letters = by_stage.get("letters")
        direct = self.direct.finish(question, [letters]) if self.direct and letters else None
        rounds = [response for response in responses if is_reason_stage(response.request.stage)]
        rounds.sort(key=lambda response: len(response.request.carry.votes))
        if not rounds:
            if direct is None or letters is None:  # start() always sends one of the two
                raise ValueError(
                    f"{question.question_id}: neither letters nor reasoning among {sorted(by_stage)}"
                )
            return replace(
                direct,
                direct_prediction=direct.prediction,
                prompt_digest=tokens_digest(letters.request.carry.reason_ids),
            )
        completions = [completion for response in rounds for completion in response.completions]
        readings: list[ExtractedAnswer] = []
        logprobs: tuple[float, ...] | None = None
        for i, completion in enumerate(completions):
            reading = self.read_completion(completion, question.options)
            if reading.letter is None:
                logprobs = by_stage[f"forced-{i}"].logprobs
                reading = ExtractedAnswer(read_letters(logprobs).letter, FORCED)
            readings.append(reading)
        letter, share = majority_vote(
            [reading.letter or "" for reading in readings], letters.logprobs if letters else None
        )
        rungs = [reading.rung or "" for reading in readings if reading.letter == letter]
        rung = min(rungs, key=[*LADDER, FORCED].index)
        generated_tokens = sum(len(completion.token_ids) for completion in completions)
        forced_count = sum(reading.rung == FORCED for reading in readings)
        has_votes = self.num_samples > 1
        prediction = make_prediction(
            question,
            letter,
            rung,
            rounds[0].request.token_ids,
            forced=rung == FORCED,
            logprobs=None if has_votes else logprobs,
            confidence=share if has_votes else None,
            sample_predictions=[reading.letter for reading in readings] if has_votes else None,
            texts=[completion.text for completion in completions],
            output_tokens=generated_tokens + forced_count,
            sample_tokens=[len(each.token_ids) for each in completions]
            if has_votes or self.budgets
            else None,
            budgets=list(self.budgets) or None,
            budget_predictions=self._budget_votes(by_stage, readings, letters) if self.budgets else None,
        )
        if direct is None:
            return prediction
        return replace(
            prediction,
            margin=direct.margin,
            direct_prediction=direct.prediction,
            prompt_tokens=prediction.prompt_tokens + direct.prompt_tokens,
            output_tokens=prediction.output_tokens + direct.output_tokens,
        )

    def _budget_votes(
        self,
        by_stage: Mapping[str, Response],
        readings: Sequence[ExtractedAnswer],
        letters: Response | None,
    ) -> list[str | None]:
        """The vote at each budget: forced letters of the texts that it cuts, the others' own."""
        votes: list[str | None] = []
        for budget in self.budgets:
            each = []
            for i, reading in enumerate(readings):
                cut = by_stage.get(f"budget-{budget}-{i}")
                each.append(read_letters(cut.logprobs).letter if cut else reading.letter or "")
            votes.append(majority_vote(each, letters.logprobs if letters else None)[0])
        return votes


def is_reason_stage(stage: str) -> bool:
    """Whether a request of this stage generates samples."""
    return stage == REASON or stage.startswith(f"{REASON}-")
