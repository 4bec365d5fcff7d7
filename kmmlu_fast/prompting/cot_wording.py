"""The wording of chain of thought: instructions by subject, the requested last line, the cues.

In: a subject, a style, letters. Out: texts. The instructions are data (``instructions.yaml``). Knows
nothing of requests or answer extraction.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.prompting.prompt_styles import find_prompt_style

FORCE_CUE = "\n정답："
NEXT_QUESTION = "\n문제:"


def final_answer_lines(style: str, letters: Sequence[str] = LETTERS) -> tuple[str, ...]:
    """The stops of a generation: the requested last line, as requested and as the style's exemplars or a
    chat model would write it.

    The line break is part of it: "정답: A" may still become "정답: A와 B를 비교하면". The list is short
    because vLLM looks for each stop after every token.
    """
    wording = find_prompt_style(style)
    other = "정답: {}**" if wording.chat else f"{wording.cue}{wording.delimiter}{{}}\n"
    lines = [form.format(letter) for form in ("정답: {}\n", other) for letter in letters]
    return tuple(dict.fromkeys(lines))


@functools.cache
def load_instructions() -> dict[str, Any]:
    """The wording, from ``instructions.yaml``."""
    import yaml

    text = Path(__file__).with_name("instructions.yaml").read_text(encoding="utf-8")
    wording: dict[str, Any] = yaml.safe_load(text)
    return wording


def subject_instruction(subject: str, supercategory: str, letters: Sequence[str] = LETTERS) -> str:
    """The instruction before a question: the general part, the line of the subject (else of its
    supercategory), and the form of the last line.
    """
    texts = load_instructions()
    own = texts["subject"].get(subject) or texts["supercategory"].get(supercategory) or texts["other_exam"]
    return f"{texts['general']}\n{own}\n{texts['final']}".replace(", ".join(LETTERS), ", ".join(letters))


def default_cot_style(tokenizer: Any) -> str:
    """The style if the user names none: chat if the model has a chat template, since models learn to reason
    in theirs.
    """
    return "chat" if getattr(tokenizer, "chat_template", None) else "qa"
