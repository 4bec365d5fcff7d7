"""A run beside published figures, in words."""

from __future__ import annotations

import pytest
from made_runs import loaded, predictions

from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.published_text import published_json, published_lines
from kmmlu_fast.runs.published import find_published_figures

FIGURES = find_published_figures("published:gpt-4")
RUN = loaded("mine", predictions(1), prompt_style="lm-eval", output_type="multiple_choice", num_fewshot=5)


def test_the_sentences_say_unpaired_and_both_protocols() -> None:
    lines = published_lines(RUN, FIGURES, get_translator("en"))
    assert "59.95 %" in lines[0] and "unpaired" in lines[0]
    assert f"mine scores {100 * RUN.macro:.2f} %" in lines[0]  # the paper's figure is over subjects
    assert (
        "lm-eval, multiple_choice, 5 exemplars here" in lines[1]
        and "five exemplars, direct answer" in lines[1]
    )
    assert "holds 200 of the 35,030" in lines[2]
    assert "짝지은 비교가 아닙니다" in published_lines(RUN, FIGURES, get_translator("ko"))[0]


def test_an_unknown_protocol_is_said() -> None:
    assert (
        "Protocols: not known here"
        in published_lines(loaded("x", predictions(1)), FIGURES, get_translator("en"))[1]
    )


def test_programs_get_the_same_numbers() -> None:
    (row,) = published_json(RUN, FIGURES)
    assert row["difference"] == pytest.approx(RUN.macro - 0.5995) and row["paired"] is False
    assert row["low"] < row["difference"] < row["high"] and row["date"] == "2024-02-18"
