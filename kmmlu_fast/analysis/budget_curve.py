"""Accuracy against thinking budget: the same texts cut after so many tokens and forced to a letter.

In: predictions with ``budgets``. Out: a ``BudgetPoint`` per budget and one for the whole texts, shortest
first; [] if the run has none. Knows nothing of models or words.

All points are of one set of texts, so they are compared question by question: each with the whole texts, by
the paired interval of ``paired`` (stratified by subject).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from kmmlu_fast.analysis.accuracy import wilson_interval
from kmmlu_fast.analysis.paired import (
    PairedDifference,
    adjust_p_values,
    micro_difference,
    subject_counts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint:
    """``change``: this budget minus the whole texts; None for these themselves."""

    budget: int | None  # tokens; None: the whole texts
    accuracy: float
    low: float
    high: float
    cut: float  # share of the texts that are longer
    tokens: float  # mean per question, of all its samples
    change: PairedDifference | None = None
    p_holm: float | None = None  # corrected for the number of budgets

    @property
    def significant(self) -> bool:
        return self.change is not None and self.change.significant_at(self.p_holm)


def compute_budget_curve(frame: pl.DataFrame) -> list[BudgetPoint]:
    """The points of the questions that have budgets (with ``--cot-below`` the others were not reasoned)."""
    chained = frame.drop_nulls(["budgets", "budget_predictions", "sample_tokens"])
    if chained.is_empty():
        return []
    budgets: list[int] = chained["budgets"][0].to_list()
    whole = (chained["prediction"] == chained["answer"]).fill_null(False)
    points = []
    for place, budget in enumerate(budgets):
        letters = chained["budget_predictions"].list.get(place)
        right = (letters == chained["answer"]).fill_null(False)
        pairs = chained.select("subject", "supercategory", first=whole, second=right)
        points.append(_make_point(chained, right, budget, micro_difference(subject_counts(pairs))))
    p_values = np.array([point.change.p_value for point in points if point.change], dtype=float)
    corrected = adjust_p_values(p_values, "holm").tolist()
    points = [replace(point, p_holm=p) for point, p in zip(points, corrected, strict=True)]
    return [*points, _make_point(chained, whole, None, None)]


def _make_point(
    frame: pl.DataFrame, right: pl.Series, budget: int | None, change: PairedDifference | None
) -> BudgetPoint:
    lengths = frame.select("sample_tokens").explode("sample_tokens").to_series()
    used = lengths if budget is None else lengths.clip(upper_bound=budget)
    low, high = wilson_interval(int(right.sum()), len(right))
    return BudgetPoint(
        budget=budget,
        accuracy=int(right.sum()) / len(right),
        low=low,
        high=high,
        cut=0.0 if budget is None else int((lengths > budget).sum()) / len(lengths),
        tokens=float(used.sum()) / len(frame),
        change=change,
    )
