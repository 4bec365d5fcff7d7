"""Samples and thinking budgets in words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.sampling_text import BUDGET_COLUMN_KEYS, sample_lines, view_budgets
from kmmlu_fast.runs.metrics import Reasoning, SampleSummary

AVERAGE = {"samples": 4, "questions": 90, "accuracy": 0.5, "low": 0.4, "high": 0.6}
SOURCES = {
    "sampling_low": 0.47,
    "sampling_high": 0.53,
    "question_variance": 0.1,
    "sampling_variance": 0.1,
    "sampling_share": 0.2,
}
SHARED = {
    "num_samples": 8,
    "accuracy_first_sample": 0.5,
    "accuracy_majority": 0.6,
    "accuracy_any_sample": 0.9,
    "agreement": 0.7,
}


def summary(**more: Any) -> SampleSummary:
    return SampleSummary.model_validate({**SHARED, **more})


def point(budget: int | None, accuracy: float, significant: bool = False) -> dict[str, Any]:
    shown = {"budget": budget, "accuracy": accuracy, "ci_low": 0.1, "ci_high": 0.9, "cut": 0.5, "tokens": 9.0}
    if budget is not None:
        shown |= {"difference": accuracy - 0.6, "low": -0.3, "high": 0.1, "significant": significant}
    return shown


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_average_drawn_and_stopped(lang: str) -> None:
    t = get_translator(lang, "report")
    (line,) = sample_lines(summary(average={**AVERAGE, **SOURCES}), t)
    assert all(text in line for text in ("avg@4", "50.00", "40.00", "47.00", "20 %"))
    (single,) = sample_lines(summary(average={**AVERAGE, "samples": 1}), t)
    assert "avg@1" in single
    _, drawn = sample_lines(summary(average=AVERAGE, drawn=4.56), t)
    assert "4.6" in drawn and "8" in drawn
    stopped = {"rule": "likely", "samples": 3.5, "tokens": 0.44, "accuracy": 0.6, "changed": 2}
    _, line = sample_lines(summary(average=AVERAGE, stopping=[stopped]), t)
    assert "--vote-stopping likely" in line and "44 %" in line
    assert sample_lines(summary(), t) == sample_lines(None, t) == []
    assert not re.search(r"\{|이\(가\)|은\(는\)|을\(를\)", " ".join([single, drawn, line]))


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_table_marks_what_is_significant_and_says_from_where_on_nothing_is(lang: str) -> None:
    t = get_translator(lang, "report")
    points = [point(64, 0.3, True), point(128, 0.55), point(256, 0.6), point(None, 0.6)]
    view = view_budgets(Reasoning.model_validate({"budgets": points}), t)
    assert view is not None and [len(row) for row in view.rows] == [len(BUDGET_COLUMN_KEYS)] * 4
    assert view.rows[0][-1].startswith("−30.00*") and view.rows[1][-1].startswith("−5.00 [")
    assert view.rows[3][0] == t("budget_whole") and view.rows[3][-1] == ""
    assert "128" in view.line and "256" not in view.line
    points[2] = point(256, 0.5, True)
    view = view_budgets(Reasoning.model_validate({"budgets": points}), t)
    assert view is not None and view.line == t("budget_not_settled")
    assert view_budgets(Reasoning(), t) is None
