"""Chain of thought for one tokenizer: its stops, cues and letters as token ids.

In: a tokenizer, settings. Out: a ``ChainOfThought``, which no longer needs the tokenizer; ConfigError if a
setting does not fit the tokenizer. Knows nothing of questions except one invented probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.prompting.chat_template import find_chat_template
from kmmlu_fast.prompting.cot import DEFAULT_MAX_TOKENS, PROBE, ChainOfThought
from kmmlu_fast.prompting.cot_wording import FORCE_CUE, NEXT_QUESTION
from kmmlu_fast.prompting.methods import MultipleChoice
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.prompts import (
    Prompt,
    answer_delimiter,
    continuation_ids,
    encode_prompts,
    letter_tokens,
    render_prompt,
)
from kmmlu_fast.prompting.thoughts import DEFAULT_THOUGHT


def build_chain_of_thought(
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
    stop_ids: Sequence[int] = (),
) -> ChainOfThought:
    """The method for a tokenizer. ConfigError if a setting does not fit it."""
    is_chat = find_prompt_style(style).chat
    if thinking and not is_chat:
        raise ConfigError(
            f"--thinking needs --prompt-style chat, not {style}, and a model with a chat template; leave it"
            " out"
        )
    chat = find_chat_template(tokenizer, thinking=thinking) if is_chat else None
    is_thinking = thinking or (chat is not None and chat.is_thinking)
    thought_end = ((chat and chat.thought) or DEFAULT_THOUGHT).closer
    if is_thinking:
        _check_thought_end(tokenizer, thought_end)
    probe = [render_prompt(PROBE, [], style, tokenizer)]
    direct_letters = letter_tokens(tokenizer, probe, encode_prompts(tokenizer, probe), style, letters)
    if below is not None and direct_letters.ids is None:
        raise ConfigError(
            f"--cot-below needs letters of one token each, but {direct_letters.reason}: leave the flag out"
        )
    force_ids, force_letter_ids = _forcing_tokens(tokenizer, style, letters)
    next_question_ids: list[int] = []
    if not is_chat:
        next_question_ids = continuation_ids(tokenizer, _END, NEXT_QUESTION)
    thought_end_ids: list[int] = []
    if is_thinking:
        thought_end_ids = continuation_ids(tokenizer, _END, f"\n{thought_end}\n")
    return ChainOfThought(
        style=style,
        direct=MultipleChoice(style, direct_letters.ids) if direct_letters.ids else None,
        force_ids=force_ids,
        force_letter_ids=force_letter_ids,
        end_ids=tuple(sorted({*tokenizer.all_special_ids, *stop_ids})),
        stop_ids=tuple(stop_ids),
        next_question_ids=tuple(next_question_ids),
        think_end_ids=tuple(thought_end_ids),
        max_tokens=max_tokens or DEFAULT_MAX_TOKENS,
        num_samples=num_samples,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        below=below,
        thinking=is_thinking,
        thinking_flag=thinking,
        thought_end=thought_end,
    )


_END = Prompt("이다.", add_special_tokens=False)


def _check_thought_end(tokenizer: Any, thought_end: str) -> None:
    """ConfigError if generated texts do not show where a thought ends, since they have no special tokens."""
    ids = continuation_ids(tokenizer, _END, thought_end)
    if thought_end not in tokenizer.decode(ids, skip_special_tokens=True):
        raise ConfigError(
            f"--output-type cot: this model's thoughts end in {thought_end}, a special token that is not part"
            " of generated texts, so its answers cannot be told from its thoughts; switch thinking off with"
            " --chat-template-kwargs NAME=VALUE, or use --output-type multiple_choice"
        )


def _forcing_tokens(
    tokenizer: Any, style: str, letters: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of the cue, and of the letters after it: with the style's delimiter, or else the other one."""
    cue = continuation_ids(tokenizer, _END, FORCE_CUE)
    delimiters = ("", " ") if answer_delimiter(style) == "" else (answer_delimiter(style), "")
    for delimiter in delimiters:
        wholes = [continuation_ids(tokenizer, _END, f"{FORCE_CUE}{delimiter}{letter}") for letter in letters]
        ids = [whole[-1] for whole in wholes if whole[:-1] == cue]
        if len(set(ids)) == len(letters):
            return tuple(cue), tuple(ids)
    raise ConfigError(
        f"--output-type cot: this tokenizer splits one of the letters A-{letters[-1]} after '정답：',"
        " so an answer cannot be forced; use generate_until"
    )
