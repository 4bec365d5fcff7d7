"""Prompts as token ids: rendered once, tokenised in the background while the engine starts, the longest found
without tokenising all.

In: questions, exemplars, a method, a tokenizer. Out: ``TokenisedQuestion`` items in order. Knows nothing of engines or
runs.
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
_SPECIAL_TOKENS = 8  # which a tokenizer may add to a prompt
TokenIds = list[list["array[int]"]]  # by question, then by prompt
Check = Callable[[Sequence[Question], Sequence[list[Prompt]], TokenIds], None]


class TokenisedQuestion:
    """A question with the token ids of its rendered prompts; packed, since five-shot prompts
    hold 19 million of them.
    """

    __slots__ = ("_batch", "_place", "question")

    def __init__(self, question: Question, batch: Future[TokenIds], place: int) -> None:
        self.question, self._batch, self._place = question, batch, place

    @property
    def token_ids(self) -> list[array[int]]:
        """Of each prompt; waits until they are known. Raises what ``check`` of ``tokenise_prompts`` raised."""
        return self._batch.result()[self._place]

    def token_id_lists(self) -> list[list[int]]:
        """The token ids as methods take them."""
        return [ids.tolist() for ids in self.token_ids]

    def cancel(self) -> None:
        """Do not tokenise it any more, if that has not begun."""
        self._batch.cancel()


def render_and_tokenise(
    questions: Sequence[Question], exemplars: dict[str, list[Question]], method: Method, tokenizer: Any
) -> tuple[list[TokenisedQuestion], list[list[Prompt]]]:
    """Render and tokenise every prompt, in the order of the questions: subject by subject, so
    that prefixes are computed once.
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
    """Tokenise in a thread, in order and in large batches, so that the engine starts meanwhile and answers
    while the rest is tokenised.

    ``check(questions, prompts, token_ids)`` sees every batch; what it raises reaches whoever asks for a token
    of that batch.
    """
    pool = ThreadPoolExecutor(1, "tokenise")  # the tokenizer itself uses all cores, and none of Python's lock
    asked: list[TokenisedQuestion] = []
    for start in range(0, len(questions), PREPARED_AT_ONCE):
        some = slice(start, start + PREPARED_AT_ONCE)
        batch = pool.submit(_tokenise_batch, tokenizer, questions[some], rendered[some], check)
        asked += [TokenisedQuestion(question, batch, place) for place, question in enumerate(questions[some])]
    pool.shutdown(wait=False)
    return asked


def _tokenise_batch(
    tokenizer: Any, questions: Sequence[Question], rendered: Sequence[list[Prompt]], check: Check | None
) -> list[list[array[int]]]:
    ids = iter(encode_prompts(tokenizer, [prompt for prompts in rendered for prompt in prompts]))
    found = [[array("i", next(ids)) for _ in prompts] for prompts in rendered]
    if check is not None:
        check(questions, rendered, found)
    return found


def longest_prompt_lengths(
    questions: Sequence[Question], rendered: Sequence[list[Prompt]], tokenizer: Any, enough: int | None = None
) -> dict[str, int]:
    """Tokens of the longest prompt by question id, of those questions that could be the longest of all, or
    over ``enough`` tokens.

    A token stands for a byte of text at least (special tokens apart): prompts with fewer bytes than that need
    not be tokenised.
    """
    sizes = sorted(
        ((max(len(p.text.encode()) for p in prompts), place) for place, prompts in enumerate(rendered)),
        reverse=True,
    )
    found: dict[str, int] = {}
    for start in range(0, len(sizes), MEASURED_AT_ONCE):
        limit = max(found.values(), default=0) if enough is None else enough
        some = [
            place for size, place in sizes[start : start + MEASURED_AT_ONCE] if size + _SPECIAL_TOKENS > limit
        ]
        ids = iter(encode_prompts(tokenizer, [prompt for place in some for prompt in rendered[place]]))
        found |= {
            questions[place].question_id: max(len(next(ids)) for _ in rendered[place]) for place in some
        }
        if not some:
            break
    return found


def check_prompt_lengths(found: Mapping[str, int], max_model_len: int, output_tokens: int) -> None:
    """Refuse prompts (tokens by question id) that do not fit, naming the longest question:
    nothing is ever cut.
    """
    longest = max(found, key=lambda question_id: found[question_id], default=None)
    if longest is not None and found[longest] + output_tokens > max_model_len:
        tokens = found[longest]
        over = sum(count + output_tokens > max_model_len for count in found.values())
        raise ConfigError(
            f"{longest}: prompt of {tokens} tokens + {output_tokens} to generate is over the context of"
            f" {max_model_len} ({over} such questions); raise --max-model-len to {tokens + output_tokens}, or"
            " use fewer --num-fewshot or --max-tokens"
        )
