"""What reasoning gained and cost: which runs have it, and what is counted of them. Chain of thought is in
``tests/prompting/test_cot.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kmmlu_fast.analysis.reasoning import compare_reasoning
from kmmlu_fast.core.prediction_frames import predictions_frame
from kmmlu_fast.core.schema import Prediction


def made(row: int, prediction: str | None, read_by: str | None, **fields: Any) -> Prediction:
    return Prediction(
        question_id=f"Law/test/{row}",
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=row,
        answer="A",
        prediction=prediction,
        correct=prediction == "A",
        read_by=read_by,
        texts=["."],
        output_tokens=3,
        **fields,
    )


@pytest.mark.parametrize("rule", ["exact_match", "pattern"])
def test_a_generated_letter_is_no_chain_of_thought(rule: str) -> None:
    found = compare_reasoning(predictions_frame([made(0, "A", rule), made(1, None, None)]))
    assert found is not None and found.ways == []
    assert found.read_by is not None
    assert (found.read_by.strict, found.read_by.lenient, found.read_by.unparsed) == (1, 0, 1)
    chain = compare_reasoning(predictions_frame([made(0, "A", "forced", forced=True), made(1, "B", "bold")]))
    assert chain is not None and [row.way for row in chain.ways] == ["full", "full_unforced"]


def test_average_counts_the_samples_that_every_question_has() -> None:
    rows = [
        made(0, "A", "bold", sample_predictions=["A", "B", "A"], confidence=0.67, sample_tokens=[5, 5, 5]),
        made(
            1,
            "B",
            "bold",
            sample_predictions=["B", "A", "B", "A", "B"],
            confidence=0.6,
            sample_tokens=[5] * 5,
        ),
        made(2, "A", "bold", sample_predictions=["A", "A", "A"], confidence=1.0, sample_tokens=[5, 5, 5]),
    ]
    found = compare_reasoning(predictions_frame(rows))
    assert found is not None and found.samples is not None and found.samples.average is not None
    assert found.samples.average.samples == 3
    assert found.samples.average.accuracy == pytest.approx((2 + 1 + 3) / 9)
    assert found.samples.drawn == pytest.approx(11 / 3) and found.samples.stopping == []


def test_what_stopping_would_have_spared_is_counted_in_tokens() -> None:
    tokens = [10, 20, 30, 40, 50]
    rows = [
        made(0, "A", "bold", sample_predictions=list("AAABB"), confidence=0.6, sample_tokens=tokens),
        made(1, "B", "bold", sample_predictions=list("BABAB"), confidence=0.6, sample_tokens=tokens),
    ]
    found = compare_reasoning(predictions_frame(rows))
    assert found is not None and found.samples is not None
    exact = found.samples.stopping[0]
    assert (exact.rule, exact.samples, exact.changed, exact.accuracy) == ("exact", 4.0, 0, 0.5)
    assert exact.tokens == pytest.approx((60 + 150) / 300)
    unknown = [replace(row, sample_tokens=None) for row in rows]
    found = compare_reasoning(predictions_frame(unknown))
    assert found is not None and found.samples is not None and found.samples.stopping[0].tokens is None
