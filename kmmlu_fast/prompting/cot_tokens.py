"""Chain of thought for one tokenizer: its stops, cues and letters as token ids.

In: a tokenizer, settings. Out: a ``ChainOfThought``, which no longer needs the tokenizer; ConfigError if a
setting does not fit the tokenizer. Knows nothing of questions except one invented probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.prompting.cot import DEFAULT_MAX_TOKENS, PROBE, ChainOfThought
from kmmlu_fast.prompting.cot_wording import FORCE_CUE, NEXT_QUESTION, THINK_END
from kmmlu_fast.prompting.methods import MultipleChoice
from kmmlu_fast.prompting.prompts import (
    Prompt,
    answer_delimiter,
    continuation_ids,
    encode_prompts,
    find_prompt_style,
    letter_tokens,
    render_prompt,
)


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
) -> ChainOfThought:
    """The method for a tokenizer. ConfigError if a setting does not fit it."""
    if thinking and "enable_thinking" not in (getattr(tokenizer, "chat_template", None) or ""):
        raise ConfigError(
            "--thinking needs a chat template with enable_thinking (such as Qwen3's), which this model does"
            " not have: leave the flag out"
        )
    if thinking and not find_prompt_style(style).chat:
        raise ConfigError(f"--thinking needs --prompt-style chat, not {style}")
    probe = [render_prompt(PROBE, [], style, tokenizer)]
    direct_letters = letter_tokens(tokenizer, probe, encode_prompts(tokenizer, probe), style, letters)
    if below is not None and direct_letters.ids is None:
        raise ConfigError(
            f"--cot-below needs letters of one token each, but {direct_letters.reason}: leave the flag out"
        )
    force_ids, force_letter_ids = _forcing_tokens(tokenizer, style, letters)
    next_question_ids: list[int] = []
    if not find_prompt_style(style).chat:
        next_question_ids = continuation_ids(tokenizer, _END, NEXT_QUESTION)
    return ChainOfThought(
        style=style,
        direct=MultipleChoice(style, direct_letters.ids) if direct_letters.ids else None,
        force_ids=force_ids,
        force_letter_ids=force_letter_ids,
        end_ids=tuple(sorted(set(tokenizer.all_special_ids))),
        next_question_ids=tuple(next_question_ids),
        think_end_ids=tuple(continuation_ids(tokenizer, _END, THINK_END)) if thinking else (),
        max_tokens=max_tokens or DEFAULT_MAX_TOKENS,
        num_samples=num_samples,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        below=below,
        thinking=thinking,
    )


_END = Prompt("이다.", add_special_tokens=False)


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
