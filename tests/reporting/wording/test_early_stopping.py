"""Early verdicts in words: an interval that says nothing is not printed as one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmmlu_fast.analysis.sequential.betting import Decision
from kmmlu_fast.reporting.early_pairs import EarlyComparison
from kmmlu_fast.reporting.wording.early_stopping import decision_lines
from kmmlu_fast.reporting.wording.language import get_translator

OPEN = Decision(
    verdict="undecided",
    decided_at=None,
    answers=180,
    total=180,
    low=-1.0,
    high=1.0,
    e_value=1.0,
    p_value=1.0,
    alpha=0.05,
    margin=0.01,
    population="like",
)


def headline(decision: Decision, lang: str) -> str:
    pair = EarlyComparison(first="base", second="lora", decision=decision)
    return decision_lines(pair, get_translator(lang, "early"))[0]


@pytest.mark.parametrize(("lang", "said"), [("en", "too few answers changed"), ("ko", "바뀐 답이 너무 적어")])
def test_an_interval_over_everything_is_said_in_words(lang: str, said: str) -> None:
    assert said in headline(OPEN, lang) and "100.00" not in headline(OPEN, lang)
    narrower = headline(replace(OPEN, low=-0.08, high=0.17), lang)
    assert said not in narrower and "17.00" in narrower
    these = headline(replace(OPEN, low=0.0, high=0.0, population="these"), lang)
    assert said not in these
