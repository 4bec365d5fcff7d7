"""Samples and thinking budgets in words: the sentences of avg@k and of stopped votes, the budget's table.

In: a run's reasoning metrics (``runs.metrics``), the report's translator. Out: texts and rows. Knows
nothing of how they are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_percent,
    format_points,
    format_points_range,
)
from kmmlu_fast.runs.metrics import AverageAccuracy, BudgetScore, Reasoning, SampleSummary

BUDGET_COLUMN_KEYS = ("budget", "short_micro", "interval", "budget_cut", "budget_tokens", "budget_difference")


@dataclass(frozen=True, slots=True)
class BudgetView:
    """The curve as a table, and what it shows in a sentence."""

    rows: list[list[str]]
    line: str


def sample_lines(samples: SampleSummary | None, t: Translator) -> list[str]:
    """avg@k with its two intervals, and what stopping settled votes spared or would have."""
    if samples is None or samples.average is None:
        return []
    average = samples.average
    lines = [_average_line(average, t)]
    if samples.drawn is not None:
        drawn = f"{samples.drawn:.1f}"
        lines.append(t("drawn_line", drawn=drawn, num=samples.num_samples, k=average.samples))
    for stopped in samples.stopping:
        lines.append(
            t(
                "stopping_line",
                rule=stopped.rule,
                samples=f"{stopped.samples:.1f}",
                num=samples.num_samples,
                tokens=format_percent(stopped.tokens, 0),
                accuracy=format_percent(stopped.accuracy),
                changed=f"{stopped.changed:,}",
            )
        )
    return lines


def _average_line(average: AverageAccuracy, t: Translator) -> str:
    values: dict[str, object] = {
        "accuracy": format_percent(average.accuracy),
        "low": format_percent(average.low),
        "high": format_percent(average.high),
    }
    if average.sampling_low is None:
        return t("average_single_line", **values)
    values["same_low"] = format_percent(average.sampling_low)
    values["same_high"] = format_percent(average.sampling_high)
    return t("average_line", k=average.samples, share=format_percent(average.sampling_share, 0), **values)


def view_budgets(reasoning: Reasoning, t: Translator) -> BudgetView | None:
    """None if the texts were cut at no budget."""
    points = reasoning.budgets
    if not points:
        return None
    rows = [_budget_cells(point, t) for point in points]
    settled = _first_settled(points)
    if settled is None:
        return BudgetView(rows, t("budget_not_settled"))
    values = {
        "budget": f"{settled.budget:,}",
        "diff": format_points(settled.difference),
        "low": format_points(settled.low, unit=False),
        "high": format_points(settled.high, unit=False),
    }
    return BudgetView(rows, t("budget_settled", **values))


def _first_settled(points: list[BudgetScore]) -> BudgetScore | None:
    """The smallest budget from which on none differs significantly from the whole texts."""
    found = None
    for point in reversed(points):
        if point.budget is None:
            continue
        if point.significant:
            break
        found = point
    return found


def _budget_cells(point: BudgetScore, t: Translator) -> list[str]:
    name = t("budget_whole") if point.budget is None else f"{point.budget:,}"
    cells = [name, format_percent(point.accuracy)]
    cells += [f"{format_percent(point.ci_low)}–{format_percent(point.ci_high)}"]
    cells += [format_percent(point.cut, 0), f"{point.tokens:,.0f}"]
    if point.difference is None or point.low is None or point.high is None:
        return [*cells, ""]
    mark = "*" if point.significant else ""
    interval = format_points_range((point.low, point.high), unit=False)
    return [*cells, f"{format_points(point.difference, unit=False)}{mark} [{interval}]"]
