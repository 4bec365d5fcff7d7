"""What a chain of thought writes around any question, as one digest: runs with another one are not compared.

In: a method, a tokenizer. Out: sha256. Knows nothing of questions that are really asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.schema import OPTION_LETTERS, Question
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.prompting.answer_extraction import STRICT
from kmmlu_fast.prompting.cot_wording import FORCE_CUE, NEXT_QUESTION, final_answer_lines
from kmmlu_fast.prompting.prompts import Prompt


class CotPrompts(Protocol):
    """What is asked of a ``ChainOfThought``."""

    @property
    def style(self) -> str: ...

    def render(self, question: Question, exemplars: Sequence[Question], tokenizer: Any) -> list[Prompt]: ...


PROBE = Question(
    question_id="probe/test/0",
    subject="Math",
    supercategory="STEM",
    split="test",
    row=0,
    question="하나에 둘을 더하면?",
    options=("1", "2", "3", "4"),
    answer="C",
)


def cot_wording_digest(method: CotPrompts, tokenizer: Any, varied_options: bool = False) -> str:
    """sha256 (16 hex digits) of an invented question rendered for every subject, with its stops and cue:
    changes with any byte of them. ``varied_options``: with 2 to 10 options too.
    """
    questions = [replace(PROBE, subject=s.name, supercategory=s.supercategory) for s in SUBJECTS.values()]
    if varied_options:
        counts = range(2, len(OPTION_LETTERS) + 1)
        questions += [
            replace(PROBE, subject="", supercategory="", options=("1",) * count, answer="A")
            for count in counts
        ]
    texts = [prompt.text for question in questions for prompt in method.render(question, [PROBE], tokenizer)]
    wording = [texts, final_answer_lines(method.style), NEXT_QUESTION, FORCE_CUE, STRICT]
    return text_digest(json.dumps(wording, ensure_ascii=False))
