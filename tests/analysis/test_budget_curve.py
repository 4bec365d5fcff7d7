"""The budget curve counts what the stored letters say."""

from __future__ import annotations

import polars as pl
import pytest

from kmmlu_fast.analysis.budget_curve import compute_budget_curve
from kmmlu_fast.analysis.paired import micro_difference, subject_counts


def made(n: int = 60) -> pl.DataFrame:
    """Every answer is A; whole texts find it except in every fourth; 8 tokens find it in every third."""
    rows = range(n)
    return pl.DataFrame(
        {
            "subject": ["Law" if row % 2 else "Math" for row in rows],
            "supercategory": ["HUMSS" if row % 2 else "STEM" for row in rows],
            "answer": ["A"] * n,
            "prediction": ["B" if row % 4 == 0 else "A" for row in rows],
            "sample_tokens": [[10, 30] for _ in rows],
            "budgets": [[8, 20] for _ in rows],
            "budget_predictions": [["A" if row % 3 == 0 else "C", "A" if row % 4 else None] for row in rows],
        }
    )


def test_points_and_paired_differences() -> None:
    frame = made()
    first, second, whole = compute_budget_curve(frame)
    assert [point.budget for point in (first, second, whole)] == [8, 20, None]
    assert [point.accuracy for point in (first, second, whole)] == pytest.approx([1 / 3, 0.75, 0.75])
    assert [point.tokens for point in (first, second, whole)] == [16, 30, 40]
    assert [point.cut for point in (first, second, whole)] == [1.0, 0.5, 0.0]
    assert whole.change is None and not whole.significant
    assert first.significant and not second.significant and second.change is not None
    assert (second.change.b, second.change.c) == (0, 0)
    right = pl.Series([row % 3 == 0 for row in range(60)])
    pairs = frame.select("subject", "supercategory", first=pl.col("prediction") == "A", second=right)
    assert first.change == micro_difference(subject_counts(pairs))
    assert first.p_holm == pytest.approx(min(1.0, 2 * (first.change.p_value or 1)))


def test_questions_without_reasoning_are_left_out() -> None:
    frame = made().with_columns(
        pl.when(pl.int_range(60) < 30).then("budgets").alias("budgets"),
    )
    assert compute_budget_curve(frame)[-1].change is None
    assert compute_budget_curve(frame.clear()) == []
    assert compute_budget_curve(frame.with_columns(budgets=pl.lit(None, pl.List(pl.Int32)))) == []
