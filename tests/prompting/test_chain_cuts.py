"""Whether a thought is open in a text's first tokens: the same as its parser says of the text."""

from __future__ import annotations

import random

import pytest

from kmmlu_fast.prompting.chain_cuts import ThoughtMarks, find_last
from kmmlu_fast.prompting.reasoning_parsers import ReasoningParser

MARKS = ThoughtMarks(openers=((1, 2),), closers=((3,), (4, 5)))
PARSER = ReasoningParser(name="", openers=("ab",), closers=("c", "de"))


@pytest.mark.parametrize("in_thought", [False, True])
def test_tokens_say_what_the_text_says(in_thought: bool) -> None:
    draw = random.Random(7)
    for _ in range(3000):
        ids = tuple(draw.choices(range(7), k=draw.randrange(9)))
        text = "".join("xabcdey"[each] for each in ids)
        assert MARKS.is_open(ids, in_thought) == (PARSER.find_answer(text, in_thought) is None), text


def test_the_last_place_is_found() -> None:
    assert find_last((1, 2, 1, 2, 3), (1, 2)) == 2
    assert find_last((1,), (1, 2)) == find_last((), (3,)) == -1
