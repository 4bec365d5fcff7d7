"""Runs that stopped early: what is read from them is checked as a complete run is, part by part and against
the order that they were asked in.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_runs import loaded, predictions

from bench.faults.bending import bend_frame
from kmmlu_fast.analysis.sequential.betting import Decision
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.reporting.wording.early_stopping import recorded_decisions
from kmmlu_fast.runs.metrics import Metrics, PrefixMetrics, Speed
from kmmlu_fast.runs.store import RunStore, load_run_directory

IDS = [f"Law/test/{row}" for row in (3, 1, 4, 0, 2)]


def answer(question_id: str, letter: str = "A") -> Prediction:
    row = int(question_id.rsplit("/", 1)[1])
    return Prediction(
        question_id=question_id,
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=row,
        answer="A",
        prediction=letter,
        correct=letter == "A",
        read_by="loglikelihood",
    )


def beginning(root: Path, count: int = 3) -> Path:
    """A run that asked the first ``count`` of five questions."""
    store = RunStore(root, "run", {"model": "m"}, {"config": {}})
    store.begin_prefix(
        pl.DataFrame({"question_id": IDS, "answer": ["A"] * len(IDS)}),
        PrefixMetrics(seed=42, total=len(IDS), questions=0, accuracy=[0.0, 1.0]),
    )
    for question_id in IDS[:count]:
        store.append(answer(question_id))
    speed = Speed(questions=count, seconds=1.5)
    run = store.pause(
        PrefixMetrics(seed=42, total=len(IDS), questions=count, accuracy=[0.2, 0.9], speed=speed)
    )
    assert run.prefix is not None and run.total == count and run.path is not None
    return run.path


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(seed=st.integers(0, 10**9))
@example(seed=100759)  # every answer was right already, and was bent to be right
def test_parts_that_no_evaluation_writes_are_refused(tmp_path: Path, seed: int) -> None:
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    folder = beginning(tmp_path / "runs")
    part = folder / "predictions" / "part-00000.parquet"
    frame, wrong = bend_frame(pl.read_parquet(part), random.Random(seed))
    assert wrong
    frame.write_parquet(part)
    with pytest.raises(RunError, match=r"part-00000\.parquet"):
        load_run_directory(folder, prefix=True)
    with pytest.raises(RunError, match=r"part-00000\.parquet"):  # nor is it continued
        RunStore(folder.parent, "run", {"model": "m"}, {"config": {}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "x"}, "seed is 'x'"),
        ({"total": -1}, "total is -1"),
        ({"questions": True}, "questions is True"),
        ({"accuracy": [0.9, 0.2]}, "accuracy is not an interval of shares"),
        ({"accuracy": [0.1]}, r"accuracy is \[0.1\]"),
        ({"accuracy": ["0", "1"]}, "accuracy: 0 is '0'"),
        ({"accuracy": None}, "accuracy is None"),
        ({"speed": {"seconds": "x"}}, "speed: seconds is 'x'"),
        ({"full_pass": {"seconds": []}}, "full_pass: seconds is"),
        ({"decision": 5}, "decision is 5"),
    ],
)
def test_prefix_json_of_wrong_types_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = beginning(tmp_path)
    known = json.loads((folder / "prefix.json").read_text())
    (folder / "prefix.json").write_text(json.dumps({**known, **change}))
    with pytest.raises(RunError, match=message) as caught:
        load_run_directory(folder, prefix=True)
    assert "prefix.json" in str(caught.value) and "--overwrite" in str(caught.value)


@pytest.mark.parametrize(
    ("bent", "message"),
    [
        (lambda order: order.with_columns(answer=pl.lit("B")), "has answer 'A', but 'B' in the order"),
        (lambda order: order.filter(pl.col("question_id") != IDS[1]), "is not a question of the order"),
        (lambda order: pl.concat([order, order.head(1)]), "appears in two rows"),
        (lambda order: order.with_columns(answer=pl.lit(None, pl.String)), "has no id or answer"),
        (lambda order: order.drop("answer"), "lacks column answer"),
    ],
)
def test_answers_must_be_a_beginning_of_the_order(
    tmp_path: Path, bent: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    folder = beginning(tmp_path)
    bent(pl.read_parquet(folder / "order.parquet")).write_parquet(folder / "order.parquet")
    with pytest.raises(RunError, match=message):
        load_run_directory(folder, prefix=True)


def test_a_question_answered_in_two_parts_is_refused(tmp_path: Path) -> None:
    folder = beginning(tmp_path)
    part = folder / "predictions" / "part-00000.parquet"
    part.with_name("part-00009.parquet").write_bytes(part.read_bytes())
    with pytest.raises(RunError, match="was answered twice"):
        load_run_directory(folder, prefix=True)


@pytest.mark.parametrize(
    "change", [{"verdict": "great"}, {"low": "x"}, {"total": 0}, {"more": 1}, {"answers": None}]
)
def test_a_decision_that_no_evaluation_made_is_not_told(change: dict[str, Any]) -> None:
    made = asdict(
        Decision(
            verdict="better",
            decided_at=40,
            answers=40,
            total=90,
            low=0.02,
            high=0.2,
            e_value=30.0,
            p_value=0.03,
            alpha=0.05,
            margin=0.01,
        )
    )
    run = loaded("run", predictions(1))
    [told] = recorded_decisions([replace(run, metrics=Metrics(decision=made))])
    assert told.decision.verdict == "better"
    with pytest.raises(RunError, match="which no evaluation wrote"):
        recorded_decisions([replace(run, metrics=Metrics(decision={**made, **change}))])
