"""The wording of chain of thought: instructions by subject, the last line that is asked for, the cues.

In: a subject, a style, letters. Out: texts. The instructions are data (``instructions.yaml``). Knows
nothing of requests or readings.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.schema import (
    LETTERS,
)
from kmmlu_fast.prompting.prompts import (
    find_prompt_style,
)

FORCE_CUE = "\n정답："
THINK_END = "\n</think>\n"
NEXT_QUESTION = "\n문제:"


def final_answer_lines(style: str, letters: Sequence[str] = LETTERS) -> tuple[str, ...]:
    """What ends a generation: the asked-for line, as asked for and as the style's exemplars or a chat model
    would write it.

    The line break belongs to it: "정답: A" may still become "정답: A와 B를 비교하면". Few, for vLLM looks for each
    after every token.
    """  # noqa: E501
    found = find_prompt_style(style)
    other = "정답: {}**" if found.chat else f"{found.cue}{found.delimiter}{{}}\n"
    return tuple(dict.fromkeys(form.format(letter) for form in ("정답: {}\n", other) for letter in letters))


@functools.cache
def load_instructions() -> dict[str, Any]:
    """The wording, from ``instructions.yaml``."""
    import yaml

    loaded: dict[str, Any] = yaml.safe_load(
        Path(__file__).with_name("instructions.yaml").read_text(encoding="utf-8")
    )
    return loaded


def subject_instruction(subject: str, supercategory: str, letters: Sequence[str] = LETTERS) -> str:
    """What is said before a question: general, the subject's (else its supercategory's) line,
    the form of the last line.
    """
    data = load_instructions()
    own = data["subject"].get(subject) or data["supercategory"].get(supercategory) or data["other_exam"]
    return f"{data['general']}\n{own}\n{data['final']}".replace(", ".join(LETTERS), ", ".join(letters))


def default_cot_style(tokenizer: Any) -> str:
    """Where the user names no style: chat where the model has a template, for reasoning is what
    such models were taught there.
    """
    return "chat" if getattr(tokenizer, "chat_template", None) else "qa"
