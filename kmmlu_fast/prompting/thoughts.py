"""Marks of thinking in chat templates, and the switches that turn it on and off.

In: text that a template wrote, or the names of the variables that it reads. Out: the thought that is open at
the text's end and how it is closed, or a switch. Knows nothing of tokenizers or messages.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thought:
    """One way to mark a thought: what opens it and what closes it."""

    opener: str
    closer: str

    @property
    def closing_text(self) -> str:
        """What closes a thought in which nothing was thought, as Qwen's and DeepSeek's templates write it."""
        return f"\n{self.closer}\n\n"


THOUGHTS = (
    Thought("<think>", "</think>"),
    Thought("<thinking>", "</thinking>"),
    Thought("<thought>", "</thought>"),
    Thought("<reasoning>", "</reasoning>"),
    Thought("<seed:think>", "</seed:think>"),
    Thought("<mm:think>", "</mm:think>"),  # MiniMax M3
    Thought("[THINK]", "[/THINK]"),  # Magistral
    Thought("◁think▷", "◁/think▷"),  # Kimi
    Thought("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    Thought("<|begin_of_thought|>", "<|end_of_thought|>"),
    Thought("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    Thought("<|open|>think<|sep|>", "<|close|>think<|sep|>"),  # Kimi K3
    Thought("<|channel>thought", "<channel|>"),  # Gemma 4
    Thought("<|channel|>analysis<|message|>", "<|end|>"),  # gpt-oss
)
DEFAULT_THOUGHT = THOUGHTS[0]
# The value of each switch with which a model thinks, in the order in which they are tried.
SWITCHES = {
    "enable_thinking": True,  # Qwen3, EXAONE 4, GLM 4.5
    "thinking": True,  # DeepSeek V3.1, Granite
    "enable_reasoning": True,
    "think": True,
    "skip_think": False,
    "skip_thinking": False,
    "disable_thinking": False,
}
_OPEN_TAG = re.compile(r"<([A-Za-z][\w:]*)>\s*\Z")


def find_open_thought(text: str, own_turn: str | None = None) -> Thought | None:
    """The thought that is open at the end of ``text``; None if there is none.

    ``own_turn``: how the template writes the same place in an assistant's turn of its own. A tag that stands
    at the end of ``text`` alone opens a thought, whatever its name.
    """
    found = [(text.rfind(thought.opener), thought) for thought in THOUGHTS]
    position, thought = max(found, key=lambda pair: pair[0])
    if position >= 0 and thought.closer not in text[position + len(thought.opener) :]:
        return thought
    tag = _OPEN_TAG.search(text)
    if tag and own_turn is not None and own_turn == text[: tag.start()]:
        return Thought(f"<{tag[1]}>", f"</{tag[1]}>")
    return None


def find_switch(variables: Collection[str], given: Collection[str] = ()) -> str | None:
    """The template's thinking switch, if it reads one that is known and not in ``given``."""
    return next((name for name in SWITCHES if name in variables and name not in given), None)


def thinking_values(
    variables: Collection[str], given: Mapping[str, object], thinking: bool
) -> dict[str, object]:
    """The value of every switch that the template reads and the user did not set."""
    return {
        name: value if thinking else not value
        for name, value in SWITCHES.items()
        if name in variables and name not in given
    }
