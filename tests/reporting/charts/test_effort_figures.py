"""Figures of effort: the curve of thinking budgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from made_runs import loaded, predictions

from kmmlu_fast.reporting.charts import drawing
from kmmlu_fast.reporting.charts.effort_figures import budget_figure
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.runs.metrics import Metrics


def point(budget: int | None, tokens: float, accuracy: float) -> dict[str, Any]:
    return {
        "budget": budget,
        "accuracy": accuracy,
        "ci_low": accuracy - 0.1,
        "ci_high": accuracy + 0.1,
        "cut": 0.5,
        "tokens": tokens,
    }


def test_budgets_are_drawn_in_order_with_a_budget_of_nothing() -> None:
    run = loaded("made", predictions(1))
    t = get_translator("ko", "report")
    assert budget_figure(run, "made", t) is None
    points = [point(0, 0.0, 0.3), point(256, 250.0, 0.4), point(None, 900.0, 0.5)]
    metrics = Metrics.model_validate({"reasoning": {"budgets": points}})
    figure = budget_figure(replace(run, metrics=metrics), "made", t)
    assert figure is not None and figure.id == "budget-made"
    svg = drawing.distinguish_svg_ids(
        drawing.spec_to_svg(drawing.vega_lite_spec(figure.draw(drawing.PAGE), drawing.PAGE)), "ko-budget-made"
    )
    assert "256" in svg and t("budget_whole") in svg and "NaN" not in svg
