"""The prompt styles: a name and its wording. Adding one whose prompt has the same parts: an entry here.

In: a style's name. Out: its wording. Knows nothing of questions, tokens or chat templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kmmlu_fast.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """The wording of one style. ``delimiter`` comes between the prompt and the letter, so it decides which
    tokens the letters are.
    """

    name: str
    prefix: str  # before the question
    cue: str  # the last line, after which the letter follows
    delimiter: str
    chat: bool = False


STYLES = {
    # U+FF1A, not ":": lm-eval's YAML has the full-width colon, and it is a token of its own.
    "lm-eval": PromptStyle("lm-eval", prefix="", cue="정답：", delimiter=" "),
    "qa": PromptStyle("qa", prefix="문제: ", cue="정답:", delimiter=" "),
    # What stands before an assistant's text is the template's: see ``answer_delimiter``.
    "chat": PromptStyle("chat", prefix="", cue="정답：", delimiter="", chat=True),
}

if TYPE_CHECKING:
    PromptStyleName = str
else:
    PromptStyleName = Literal[tuple(STYLES)]


def find_prompt_style(name: str) -> PromptStyle:
    """The style of that name; ConfigError if there is none."""
    if name not in STYLES:
        raise ConfigError(f"unknown prompt style {name!r}: allowed are {', '.join(STYLES)}")
    return STYLES[name]
