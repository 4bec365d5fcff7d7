"""Which prompts are tokenised to find the longest, and what is refused for its length."""

from __future__ import annotations

from typing import Any

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.prompting import tokens
from kmmlu_fast.prompting.prompts import Prompt


def question(name: str) -> Question:
    return Question(
        question_id=name,
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=0,
        question="?",
        options=("1", "2", "3", "4"),
        answer="A",
        human_accuracy=None,
    )


class ByteTokenizer:
    """A token per byte; with special tokens, ``extra`` more."""

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def __call__(self, texts: list[str], add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        more = [0] * (self.extra if add_special_tokens else 0)
        return {"input_ids": [more + list(text.encode()) for text in texts]}


def test_special_tokens_can_make_the_shorter_text_the_longer_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first prompt has more bytes; the second has special tokens, and is the longest."""
    monkeypatch.setattr(tokens, "MEASURED_AT_ONCE", 1)
    rendered = [[Prompt("a" * 20, add_special_tokens=False)], [Prompt("b" * 18, add_special_tokens=True)]]
    lengths = tokens.longest_prompt_lengths([question("x"), question("y")], rendered, ByteTokenizer(extra=4))
    assert max(lengths.values()) == 22 and lengths["y"] == 22


def test_prompts_that_cannot_be_too_long_are_not_tokenised() -> None:
    rendered = [[Prompt("a" * size, add_special_tokens=True)] for size in (500, 10)]
    questions = [question("long"), question("short")]
    lengths = tokens.longest_prompt_lengths(questions, rendered, ByteTokenizer(1), enough=400)
    assert lengths == {"long": 501}


def test_too_long_prompts_are_named_with_what_they_need() -> None:
    tokens.check_prompt_lengths({"a": 90}, 100, 10)
    with pytest.raises(
        ConfigError, match=r"b: prompt of 95 tokens \+ 10 to generate .* raise --max-model-len to 105"
    ):
        tokens.check_prompt_lengths({"a": 90, "b": 95}, 100, 10)
    with pytest.raises(ConfigError, match=r"over the model's 100 positions \(1 such questions\); less"):
        tokens.check_prompt_lengths({"a": 90, "b": 95}, 100, 10, positions=100, advice="less")
