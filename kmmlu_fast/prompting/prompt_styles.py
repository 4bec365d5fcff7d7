"""The prompt styles: a name and its wording. Adding one whose prompt has the same parts: an entry here.

In: a style's name. Out: its wording. Knows nothing of questions, tokens or chat templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kmmlu_fast.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStyle:
    """The wording of one style. ``delimiter`` comes between the prompt and the letter, so it decides which
    tokens the letters are.
    """

    name: str
    prefix: str  # before the question
    cue: str  # the last line, after which the letter follows
    delimiter: str
    chat: bool = False
    # Of a declared protocol: the whole question, with {question}, {options}, {letters} and {cue}; and a
    # line of {options}.
    template: str = "{question}{options}\n{cue}"
    option: str = "\n{letter}. {text}"
    strips_question: bool = True
    strips_options: bool = False
    system: str | None = None  # the system turn, or before everything; None: the style's own; "": none
    lm_eval_tasks: str = ""  # in place of all this: the task files of an installed lm-eval in this folder


STYLES = {
    # U+FF1A, not ":": lm-eval's YAML has the full-width colon, and it is a token of its own.
    "lm-eval": PromptStyle(name="lm-eval", prefix="", cue="정답：", delimiter=" "),
    "qa": PromptStyle(name="qa", prefix="문제: ", cue="정답:", delimiter=" "),
    # What stands before an assistant's text is the template's: see ``answer_delimiter``.
    "chat": PromptStyle(name="chat", prefix="", cue="정답：", delimiter="", chat=True),
}

if TYPE_CHECKING:
    PromptStyleName = str
else:
    PromptStyleName = Literal[tuple(STYLES)]


def add_prompt_style(style: PromptStyle) -> None:
    """Make a declared protocol's wording known by its name. ConfigError if another one has that name."""
    if STYLES.setdefault(style.name, style) != style:
        raise ConfigError(
            f"two wordings are called {style.name!r}: give one of the declarations another name"
        )


def find_prompt_style(name: str) -> PromptStyle:
    """The style of that name; ConfigError if there is none."""
    if name not in STYLES:
        raise ConfigError(f"unknown prompt style {name!r}: allowed are {', '.join(STYLES)}")
    return STYLES[name]
