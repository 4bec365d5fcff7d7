"""What a run's files may not hold: columns of chains that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.prediction_frames import predictions_frame
from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.runs.checks import check_predictions


def made(row: int, **fields: Any) -> Prediction:
    return Prediction(
        question_id=f"Law/test/{row}",
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=row,
        answer="A",
        prediction="A",
        correct=True,
        read_by="bold",
        **fields,
    )


def checked(*rows: Prediction) -> pl.DataFrame:
    return check_predictions(predictions_frame(list(rows)), Path("predictions.parquet"))


CHAIN: dict[str, Any] = {
    "texts": ["."],
    "sample_tokens": [3],
    "budgets": [1, 2],
    "budget_predictions": ["A", None],
}


def test_chains_with_budgets_and_questions_without_reasoning_pass() -> None:
    assert len(checked(made(0), made(1, **CHAIN), made(2, **CHAIN))) == 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"budgets": [1, 3]}, "has other budgets"),
        ({"budgets": [1]}, "has other budgets"),
        ({"budget_predictions": ["A"]}, "other letters than budgets"),
        ({"sample_tokens": [3, 4]}, "other sample_tokens than texts"),
    ],
)
def test_contradictions_name_the_question(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(RunError, match=rf"predictions\.parquet: .*Law/test/2.*{problem}.*--overwrite"):
        checked(made(0), made(1, **CHAIN), made(2, **CHAIN | change))
