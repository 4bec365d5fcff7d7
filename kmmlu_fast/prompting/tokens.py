"""Prompts as token ids: rendered once, tokenised in the background while the engine starts. The longest is
found without tokenising all of them.

In: questions, exemplars, a method, a tokenizer. Out: ``TokenisedQuestion`` items in order. Knows nothing of
engines or runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.prompts import Prompt, encode_prompts

PREPARED_AT_ONCE = 2048  # questions whose token ids exist as Python lists at a time
MEASURED_AT_ONCE = 256
_SPECIAL_TOKENS = 8  # that a tokenizer may add to a prompt
TokenIds = list[list["array[int]"]]  # by question, then by prompt
Check = Callable[[Sequence[Question], Sequence[list[Prompt]], TokenIds], None]


class TokenisedQuestion:
    """A question with the token ids of its rendered prompts, in arrays: five-shot prompts have 19 million."""

    __slots__ = ("_batch", "_place", "question")

    def __init__(self, question: Question, batch: Future[TokenIds], place: int) -> None:
        self.question, self._batch, self._place = question, batch, place

    @property
    def token_ids(self) -> list[array[int]]:
        """Token ids of each prompt. Waits for them; raises what ``check`` of ``tokenise_prompts`` raised."""
        return self._batch.result()[self._place]

    def token_id_lists(self) -> list[list[int]]:
        """The token ids as lists, which methods take."""
        return [ids.tolist() for ids in self.token_ids]

    def cancel(self) -> None:
        """Do not tokenise it, unless that has begun."""
        self._batch.cancel()


def render_and_tokenise(
    questions: Sequence[Question], exemplars: dict[str, list[Question]], method: Method, tokenizer: Any
) -> tuple[list[TokenisedQuestion], list[list[Prompt]]]:
    """Render and tokenise every prompt, in the order of the questions: subject by subject, so that the engine
    computes each prefix once.
    """
    rendered = render_all_prompts(questions, exemplars, method, tokenizer)
    return tokenise_prompts(questions, rendered, tokenizer), rendered


def render_all_prompts(
    questions: Sequence[Question], exemplars: Mapping[str, Sequence[Question]], method: Method, tokenizer: Any
) -> list[list[Prompt]]:
    """The prompts of each question."""
    return [method.render(question, exemplars[question.subject], tokenizer) for question in questions]


def tokenise_prompts(
    questions: Sequence[Question],
    rendered: Sequence[list[Prompt]],
    tokenizer: Any,
    check: Check | None = None,
) -> list[TokenisedQuestion]:
    """Tokenise in a thread, in order and in large batches: the engine starts meanwhile, and answers the first
    batches while the rest is tokenised.

    ``check(questions, prompts, token_ids)`` sees every batch; what it raises is raised again by
    ``TokenisedQuestion.token_ids`` of that batch.
    """
    # One thread: the tokenizer itself uses all cores, and releases Python's lock.
    pool = ThreadPoolExecutor(1, "tokenise")
    items: list[TokenisedQuestion] = []
    for start in range(0, len(questions), PREPARED_AT_ONCE):
        part = questions[start : start + PREPARED_AT_ONCE]
        prompts = rendered[start : start + PREPARED_AT_ONCE]
        batch = pool.submit(_tokenise_batch, tokenizer, part, prompts, check)
        items += [TokenisedQuestion(question, batch, place) for place, question in enumerate(part)]
    pool.shutdown(wait=False)
    return items


def _tokenise_batch(
    tokenizer: Any, questions: Sequence[Question], rendered: Sequence[list[Prompt]], check: Check | None
) -> list[list[array[int]]]:
    ids = iter(encode_prompts(tokenizer, [prompt for prompts in rendered for prompt in prompts]))
    token_ids = [[array("i", next(ids)) for _ in prompts] for prompts in rendered]
    if check is not None:
        check(questions, rendered, token_ids)
    return token_ids


def longest_prompt_lengths(
    questions: Sequence[Question], rendered: Sequence[list[Prompt]], tokenizer: Any, enough: int | None = None
) -> dict[str, int]:
    """Tokens of the longest prompt by question id, for the questions whose prompt could be the longest of
    all, or (with ``enough``) over ``enough`` tokens.

    A token covers at least one byte of text (special tokens apart), so prompts with fewer bytes need not be
    tokenised.
    """
    sizes = [(max(len(p.text.encode()) for p in prompts), place) for place, prompts in enumerate(rendered)]
    sizes.sort(reverse=True)
    lengths: dict[str, int] = {}
    for start in range(0, len(sizes), MEASURED_AT_ONCE):
        limit = max(lengths.values(), default=0) if enough is None else enough
        batch = sizes[start : start + MEASURED_AT_ONCE]
        places = [place for size, place in batch if size + _SPECIAL_TOKENS > limit]
        if not places:
            break
        ids = iter(encode_prompts(tokenizer, [prompt for place in places for prompt in rendered[place]]))
        for place in places:
            lengths[questions[place].question_id] = max(len(next(ids)) for _ in rendered[place])
    return lengths


def check_prompt_lengths(
    lengths: Mapping[str, int],
    max_model_len: int,
    output_tokens: int,
    positions: int | None = None,
    advice: str = "lower --num-fewshot or --max-tokens",
) -> None:
    """ConfigError if a prompt (tokens by question id) does not fit, naming the longest: nothing is cut.
    ``positions``: how many tokens the model can take, which --max-model-len cannot raise.
    """
    longest = max(lengths, key=lambda question_id: lengths[question_id], default=None)
    if longest is None or lengths[longest] + output_tokens <= max_model_len:
        return
    needed = lengths[longest] + output_tokens
    over = sum(count + output_tokens > max_model_len for count in lengths.values())
    problem = f"{longest}: prompt of {lengths[longest]} tokens + {output_tokens} to generate is over"
    if positions is not None and needed > positions:
        raise ConfigError(f"{problem} the model's {positions} positions ({over} such questions); {advice}")
    raise ConfigError(
        f"{problem} the context of {max_model_len} ({over} such questions); raise --max-model-len to"
        f" {needed}, or {advice}"
    )


def most_exemplars_that_fit(
    questions: Sequence[Question],
    exemplars: Mapping[str, Sequence[Question]],
    method: Method,
    tokenizer: Any,
    room: int,
) -> int | None:
    """The largest number of exemplars, fewer than these, with which no prompt has more than ``room`` tokens;
    None if none does.
    """
    for count in range(max(map(len, exemplars.values()), default=0) - 1, -1, -1):
        fewer = {subject: group[:count] for subject, group in exemplars.items()}
        rendered = render_all_prompts(questions, fewer, method, tokenizer)
        lengths = longest_prompt_lengths(questions, rendered, tokenizer, room)
        if max(lengths.values(), default=0) <= room:
            return count
    return None
