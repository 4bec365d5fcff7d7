"""Chain of thought for one tokenizer: its stops, cues and letters as token ids.

In: a tokenizer, settings. Out: a ``ChainOfThought``, which no longer needs the tokenizer; ConfigError if a
setting does not fit the tokenizer. Knows nothing of questions except one invented probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.prompting.chain_cuts import ThoughtMarks, find_last
from kmmlu_fast.prompting.chat_template import ChatTemplate, find_chat_template
from kmmlu_fast.prompting.cot import DEFAULT_MAX_TOKENS, ChainOfThought
from kmmlu_fast.prompting.cot_digest import PROBE
from kmmlu_fast.prompting.cot_wording import FORCE_CUE, NEXT_QUESTION
from kmmlu_fast.prompting.letter_forms import style_letter_form
from kmmlu_fast.prompting.methods import MultipleChoice
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.prompts import (
    LetterTokens,
    Prompt,
    answer_delimiter,
    continuation_ids,
    encode_prompts,
    letter_tokens,
    render_prompt,
)
from kmmlu_fast.prompting.reasoning_parsers import (
    ANY_PARSER,
    ReasoningParser,
    choose_parser,
    find_parser,
    is_closed,
)
from kmmlu_fast.prompting.thoughts import DEFAULT_THOUGHT
from kmmlu_fast.prompting.vote_stopping import VoteStopping


def build_chain_of_thought(
    style: str,
    tokenizer: Any,
    *,
    max_tokens: int | None = None,
    num_samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    vote_stopping: VoteStopping = "none",
    budgets: Sequence[int] = (),
    seed: int = 42,
    below: float | None = None,
    thinking: bool = False,
    letters: Sequence[str] = LETTERS,
    stop_ids: Sequence[int] = (),
    reasoning_parser: str | None = None,
) -> ChainOfThought:
    """The method for a tokenizer. ConfigError if a setting does not fit it."""
    is_chat = find_prompt_style(style).chat
    if thinking and not is_chat:
        raise ConfigError(
            f"--thinking needs --prompt-style chat, not {style}, and a model with a chat template; leave it"
            " out"
        )
    if reasoning_parser is not None and not is_chat:
        raise ConfigError(
            f"--reasoning-parser needs --prompt-style chat, not {style}, and a model with a chat template;"
            " leave it out"
        )
    chat = find_chat_template(tokenizer, thinking=thinking) if is_chat else None
    thoughts = _find_thoughts(tokenizer, chat, thinking, reasoning_parser)
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
    if thoughts.get("thinking"):
        thought_end_ids = continuation_ids(tokenizer, _END, thoughts["parser"].finishing_text)
    marks = ThoughtMarks()
    if budgets and thought_end_ids:
        marks = _thought_marks(tokenizer, thoughts["parser"])
    return ChainOfThought(
        style=style,
        direct=_direct_method(style, tokenizer, direct_letters),
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
        vote_stopping=vote_stopping,
        budgets=tuple(budgets),
        thought_marks=marks,
        thinking_flag=thinking,
        **thoughts,
    )


def _direct_method(style: str, tokenizer: Any, letters: LetterTokens) -> MultipleChoice | None:
    if letters.ids is None:
        return None
    form = style_letter_form(style, tokenizer)
    return MultipleChoice(style, letters.ids, form=form, style_form=form)


_MARK = "KMQUESTIONKM"
_END = Prompt("이다.", add_special_tokens=False)


def _find_thoughts(
    tokenizer: Any, chat: ChatTemplate | None, thinking: bool, name: str | None
) -> dict[str, Any]:
    """The fields of ``ChainOfThought`` that say how the model thinks."""
    if chat is None:
        return {"parser": ANY_PARSER}
    parser = find_parser(name) if name else choose_parser(chat.compiled.source, chat.thought)
    _, _, prompt_end = chat.render_prompt([{"role": "user", "content": _MARK}]).rpartition(_MARK)
    closed = chat.thought is None and is_closed(parser, prompt_end)
    hidden = not closed and _is_hidden(tokenizer, parser)
    is_thinking = chat.is_thinking or (not closed and (name is not None or hidden or parser.always))
    in_thought = chat.thought is not None or (is_thinking and not closed and not parser.unmarked)
    as_before = (
        not hidden
        and is_thinking == in_thought == chat.is_thinking
        and (not is_thinking or parser.closers[0] == (chat.thought or DEFAULT_THOUGHT).closer)
        and not (is_thinking and parser.answer_marks)
    )
    return {
        "parser": parser,
        "thinking": is_thinking,
        "in_thought": in_thought,
        "parser_matters": not as_before,
        "special_texts": tuple(tokenizer.all_special_tokens) if hidden else (),
    }


def _is_hidden(tokenizer: Any, parser: ReasoningParser) -> bool:
    """Whether texts show where a thought begins or ends only with their special tokens."""
    if parser is ANY_PARSER:
        return False
    for mark in (parser.openers[0], parser.closers[0]):
        ids = continuation_ids(tokenizer, _END, mark)
        with_special, without = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True))
        if mark in with_special and mark not in without:
            return True
    return False


def _thought_marks(tokenizer: Any, parser: ReasoningParser) -> ThoughtMarks:
    """The parser's marks as tokens. ConfigError if they depend on the text around them."""
    openers, closers = (
        tuple(_mark_ids(tokenizer, mark) for mark in marks) for marks in (parser.openers, parser.closers)
    )
    return ThoughtMarks(openers, closers)


def _mark_ids(tokenizer: Any, mark: str) -> tuple[int, ...]:
    alone = tuple(continuation_ids(tokenizer, _END, mark))
    for before, after in (("\n", "\n\n"), (" ", "답"), ("", "\n")):
        ids = continuation_ids(tokenizer, _END, f"{before}{mark}{after}")
        if find_last(ids, alone) < 0:
            raise ConfigError(
                f"--thinking-budgets: this tokenizer writes the mark {mark!r} of a thought with other tokens"
                " in other places, so a cut text does not show whether it is still thinking; leave the flag"
                " out"
            )
    return alone


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
