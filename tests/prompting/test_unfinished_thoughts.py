"""How many texts ended inside a thought."""

from __future__ import annotations

import polars as pl
from template_cases import OWN, tokenizer_with

from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.prompting.unfinished_thoughts import describe_unfinished_thoughts

FRAME = pl.DataFrame({"texts": [["아마 A", "아마 A</think>정답: B"], None, ["정답: A"]]})


def test_texts_that_end_inside_a_thought_are_counted() -> None:
    method = build_chain_of_thought("chat", tokenizer_with(OWN["thought_left_open"]), max_tokens=77)
    (note,) = describe_unfinished_thoughts(method, FRAME)
    assert note.startswith("2 of 3 texts (67%) ended inside a thought, most likely at --max-tokens 77")


def test_nothing_is_said_without_thoughts() -> None:
    method = build_chain_of_thought("chat", tokenizer_with(OWN["thought_closed"]))
    assert describe_unfinished_thoughts(method, FRAME) == []
    assert describe_unfinished_thoughts(object(), FRAME) == []
    none = pl.DataFrame({"texts": [None]}, schema={"texts": pl.List(pl.String)})
    assert describe_unfinished_thoughts(method, none) == []
