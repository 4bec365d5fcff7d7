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
tells where reasoning would have been worth it. Knows nothing of files or engines; the wording is data
(``instructions.yaml``).
"""  # noqa: E501

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.asking.ladder import EXPLICIT, LADDER, STRICT, Reading, read_answer
from kmmlu_fast.asking.methods import MultipleChoice, make_prediction, text_decoding
from kmmlu_fast.asking.prompts import (
    Prompt,
    answer_delimiter,
    continuation_ids,
    encode,
    find_style,
    letter_tokens,
    render,
)
from kmmlu_fast.core.digests import tokens_digest
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import read_letters
from kmmlu_fast.core.schema import (
    LETTERS,
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

DEFAULT_MAX_TOKENS = 512
FORCED = "forced"
FORCE_CUE = "\n정답："
_THINK_END = "\n</think>\n"
_NEXT_QUESTION = "\n문제:"


def final_lines(style: str, letters: Sequence[str] = LETTERS) -> tuple[str, ...]:
    """What ends a generation: the asked-for line, as asked for and as the style's exemplars or a chat model
    would write it.

    The line break belongs to it: "정답: A" may still become "정답: A와 B를 비교하면". Few, for vLLM looks for each
    after every token.
    """  # noqa: E501
    found = find_style(style)
    other = "정답: {}**" if found.chat else f"{found.cue}{found.delimiter}{{}}\n"
    return tuple(dict.fromkeys(form.format(letter) for form in ("정답: {}\n", other) for letter in letters))


@functools.cache
def instructions() -> dict[str, Any]:
    """The wording, from ``instructions.yaml``."""
    import yaml

    loaded: dict[str, Any] = yaml.safe_load(
        Path(__file__).with_name("instructions.yaml").read_text(encoding="utf-8")
    )
    return loaded


def instruction(subject: str, supercategory: str, letters: Sequence[str] = LETTERS) -> str:
    """What is said before a question: general, the subject's (else its supercategory's) line,
    the form of the last line.
    """
    data = instructions()
    own = data["subject"].get(subject) or data["supercategory"].get(supercategory) or data["other_exam"]
    return f"{data['general']}\n{own}\n{data['final']}".replace(", ".join(LETTERS), ", ".join(letters))


def sampling_seed(seed: int, question_id: str, stage: str) -> int:
    """31 bits from a stable hash: a resumed run, in any order, draws what the whole run would have drawn."""
    digest = hashlib.sha256(f"{seed}\x1f{question_id}\x1f{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def default_style(tokenizer: Any) -> str:
    """Where the user names no style: chat where the model has a template, for reasoning is what
    such models were taught there.
    """
    return "chat" if getattr(tokenizer, "chat_template", None) else "qa"


@dataclass(frozen=True, slots=True)
class Carried:
    """What ``follow_up`` needs of the question, beside the response: it travels with the
    request (``Request.carry``).
    """

    options: tuple[str, ...]
    reason_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
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
        return wording_digest(self, tokenizer, is_kmmlu)

    def decoding(self, questions: Sequence[Question]) -> dict[str, Any]:
        return text_decoding(
            self.max_tokens, self.temperature, self.top_p, self.seed, self.num_samples, self.below
        )

    def reasoning_prompt(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> Prompt:
        """The exemplars keep their plain letters: KMMLU's dev split has no solutions, and none
        are made up.
        """
        data, style = instructions(), find_style(self.style)
        return render(
            question,
            exemplars,
            self.style,
            tokenizer,
            instruction=instruction(question.subject, question.supercategory, question.letters),
            cue=data["chat_cue"] if style.chat else data["cue"],
            exemplar_cue=style.cue,
            thinking=self.thinking,
        )

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]:
        direct = self.direct.render(question, exemplars, tokenizer) if self.direct else []
        return [self.reasoning_prompt(question, exemplars, tokenizer), *direct]

    def start(self, question: Question, token_ids: list[list[int]], adapter: Adapter | None) -> list[Request]:
        reason_ids = tuple(token_ids[0])
        carried = Carried(question.options, reason_ids)
        letters = (
            [replace(r, carry=carried) for r in self.direct.start(question, token_ids[1:], adapter)]
            if self.direct
            else []
        )
        return (
            letters
            if self.below is not None
            else [*letters, self._reason(question.question_id, carried, adapter)]
        )

    def _reason(self, question_id: str, carried: Carried, adapter: Adapter | None) -> Request:
        lines = final_lines(self.style, OPTION_LETTERS[: len(carried.options)])
        stops = () if self.thinking else lines if find_style(self.style).chat else (*lines, _NEXT_QUESTION)
        text = Generation(
            max_tokens=max(2, self.max_tokens),
            num_samples=self.num_samples,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=sampling_seed(self.seed, question_id, "reason") if self.temperature > 0 else None,
            stop=stops,
            include_stop=True,
        )
        carry = Carried(carried.options)
        return Request(question_id, "reason", carried.reason_ids, text, adapter, carry)

    def follow_up(self, response: Response) -> list[Request]:
        request = response.request
        if request.stage == "letters":
            doubtful = self.below is not None and read_letters(response.logprobs).margin < self.below
            return [self._reason(request.question_id, request.carry, request.adapter)] if doubtful else []
        if request.stage != "reason":
            return []
        letters = Candidates(self.force_letter_ids[: len(request.carry.options)])
        return [
            Request(
                request.question_id,
                f"forced-{i}",
                (*request.token_ids, *self._forcing(completion)),
                letters,
                request.adapter,
            )
            for i, completion in enumerate(response.completions)
            if self.read(completion, request.carry.options).letter is None
        ]

    def read(self, completion: Completion, options: Sequence[str]) -> Reading:
        """The ladder; of a text cut by its budget only an answer named as such counts, for its
        last sentence concludes nothing.
        """
        cut = completion.finish_reason == "length"
        ladder = {name: LADDER[name] for name in EXPLICIT} if cut else None
        return read_answer(
            completion.text.removesuffix(_NEXT_QUESTION), options, thinking=self.thinking, ladder=ladder
        )

    def _forcing(self, completion: Completion) -> tuple[int, ...]:
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
        readings: list[Reading] = []
        logprobs: tuple[float, ...] | None = None
        for i, completion in enumerate(reason.completions):
            reading = self.read(completion, question.options)
            if reading.letter is None:
                logprobs = by_stage[f"forced-{i}"].logprobs
                reading = Reading(read_letters(logprobs).letter, FORCED)
            readings.append(reading)
        letter, share = vote(
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


def vote(letters: Sequence[str], logprobs: Sequence[float] | None) -> tuple[str, float]:
    """The most frequent letter and its share; a tie goes to the higher log-probability, without
    these to the earlier sample.
    """
    counts = Counter(letters)
    most = max(counts.values())
    tied = [letter for letter in counts if counts[letter] == most]  # in the order of the samples
    best = max(tied, key=lambda letter: logprobs[OPTION_LETTERS.index(letter)]) if logprobs else tied[0]
    return best, most / len(letters)


def build_method(
    style: str,
    tokenizer: Any,
    *,
    max_tokens: int | None = None,
    num_samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 42,
    below: float | None = None,
    thinking: bool = False,
    letters: Sequence[str] = LETTERS,
) -> ChainOfThought:
    """The method for a tokenizer. ConfigError where a setting does not fit it."""
    if thinking and "enable_thinking" not in (getattr(tokenizer, "chat_template", None) or ""):
        raise ConfigError(
            "--thinking needs a chat template that has enable_thinking (as Qwen3's); this model's has not:"
            " leave the flag out"
        )
    if thinking and not find_style(style).chat:
        raise ConfigError(f"--thinking goes with --prompt-style chat, not {style}")
    probe = [render(_PROBE, [], style, tokenizer)]
    found = letter_tokens(tokenizer, probe, encode(tokenizer, probe), style, letters)
    if below is not None and found.ids is None:
        raise ConfigError(
            f"--cot-below needs letters of one token each, and here {found.reason}: leave the flag out"
        )
    force_ids, force_letter_ids = _forcing_tokens(tokenizer, style, letters)
    return ChainOfThought(
        style=style,
        direct=MultipleChoice(style, found.ids) if found.ids else None,
        force_ids=force_ids,
        force_letter_ids=force_letter_ids,
        end_ids=tuple(sorted(set(tokenizer.all_special_ids))),
        next_question_ids=(
            () if find_style(style).chat else tuple(continuation_ids(tokenizer, _END, _NEXT_QUESTION))
        ),
        think_end_ids=tuple(continuation_ids(tokenizer, _END, _THINK_END)) if thinking else (),
        max_tokens=max_tokens or DEFAULT_MAX_TOKENS,
        num_samples=num_samples,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        below=below,
        thinking=thinking,
    )


_PROBE = Question("probe/test/0", "Math", "STEM", "test", 0, "하나에 둘을 더하면?", ("1", "2", "3", "4"), "C")
_END = Prompt("이다.", add_special_tokens=False)


def _forcing_tokens(
    tokenizer: Any, style: str, letters: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of the cue, and of the letters after it, with the style's delimiter or else with
    the other one.
    """
    cue = continuation_ids(tokenizer, _END, FORCE_CUE)
    own = answer_delimiter(style)
    for delimiter in (own, " " if own == "" else ""):
        wholes = [continuation_ids(tokenizer, _END, f"{FORCE_CUE}{delimiter}{letter}") for letter in letters]
        ids = [whole[-1] for whole in wholes if whole[:-1] == cue]
        if len(set(ids)) == len(letters):
            return tuple(cue), tuple(ids)
    raise ConfigError(
        f"--output-type cot: this tokenizer splits one of the letters A-{letters[-1]} after '정답：', "
        "so an answer cannot be forced; use generate_until"
    )


def wording_digest(method: ChainOfThought, tokenizer: Any, is_kmmlu: bool = True) -> str:
    """sha256 (16 hex digits) of an invented question rendered for every subject, with its stops and cue:
    changes with any byte of them.

    For other exams than KMMLU also with every number of options.
    """
    questions = [replace(_PROBE, subject=s.name, supercategory=s.supercategory) for s in SUBJECTS.values()]
    if not is_kmmlu:
        counts = range(2, len(OPTION_LETTERS) + 1)
        questions += [
            replace(_PROBE, subject="", supercategory="", options=("1",) * count, answer="A")
            for count in counts
        ]
    texts = [prompt.text for question in questions for prompt in method.render(question, [_PROBE], tokenizer)]
    return hashlib.sha256(
        json.dumps(
            [texts, final_lines(method.style), _NEXT_QUESTION, FORCE_CUE, STRICT], ensure_ascii=False
        ).encode()
    ).hexdigest()[:16]
