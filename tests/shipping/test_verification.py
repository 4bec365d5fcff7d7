"""Honest bundles are accepted whatever the machines' rounding; tampered ones are not."""

from __future__ import annotations

import random

import made_runs
import polars as pl
import pytest

from kmmlu_fast.analysis.accuracy import summarise_predictions
from kmmlu_fast.shipping.verification import check_headline, poisson_binomial_tail, verify_sample


def answers(draw: random.Random, count: int = 400) -> tuple[list[list[float]], list[int]]:
    """Log-probabilities with many near ties, as a weak model has, and keys."""
    rows = [[draw.gauss(-2, 0.8) for _ in range(4)] for _ in range(count)]
    return rows, [draw.randrange(4) for _ in range(count)]


def other_machine(draw: random.Random, rows: list[list[float]], noise: float) -> list[list[float]]:
    """The same model elsewhere: accumulated rounding, then bfloat16's steps of a logit above 16."""
    return [
        [round((value + draw.gauss(0, noise)) * 8) / 8 if noise else value for value in row] for row in rows
    ]


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.06])
def test_honest_bundles_are_accepted(noise: float) -> None:
    for seed in range(60):
        draw = random.Random(seed)
        rows, keys = answers(draw)
        found = verify_sample(rows, other_machine(draw, rows, noise), keys)
        assert found.accepted, found.reasons


@pytest.mark.parametrize("name", ["weak", "middling", "strong"])
def test_power_and_level_of_the_simulation(name: str) -> None:
    """``bench.verification`` with a thousand bundles of each kind measures it; this is its sentinel."""
    from bench.verification import _MARGINS, POWER, VerificationConfig, make_world, simulate

    config = VerificationConfig(bundles=60, questions=2000)
    found = simulate(make_world(name, _MARGINS[name], seed=1), config)
    assert found["honest_accepted"] == 60 and found["power"] >= POWER


def test_tails_of_rounding_widen_the_limit_and_many_changes_do_not() -> None:
    draw = random.Random(0)
    rows, keys = answers(draw)
    heavy = [[value + draw.gauss(0, 0.2 if number % 10 == 0 else 0.02) for value in row]
             for number, row in enumerate(rows)]  # fmt: skip
    assert verify_sample(rows, heavy, keys).accepted
    changed = [list(row) for row in rows]
    for row in changed[:80]:  # a fifth: what 95 % of the questions stay under is then no rounding
        row[0], row[1] = row[0] + 1.5, row[1] - 1.5
    assert "other log-probabilities" in verify_sample(changed, rows, keys).reasons[0]


def test_poisson_binomial_by_hand() -> None:
    assert poisson_binomial_tail([0.5, 0.5], 1) == pytest.approx(0.75)
    assert poisson_binomial_tail([0.1, 0.2, 0.3], 3) == pytest.approx(0.006)
    assert poisson_binomial_tail([0.1], 2) == 0.0 and poisson_binomial_tail([0.1], 0) == 1.0


def test_numbers_follow_from_the_answers() -> None:
    frame = made_runs.predictions(1)
    summary = summarise_predictions(frame).to_json()
    headline = {key: summary[key] for key in ("num_questions", "micro", "macro", "subjects")}
    assert check_headline(headline, frame) == []
    better = {**headline, "micro": {**headline["micro"], "accuracy": headline["micro"]["accuracy"] + 0.01}}
    assert "headline.micro.accuracy" in check_headline(better, frame)[0]


def test_letters_against_their_own_log_probabilities() -> None:
    frame = made_runs.predictions(1)
    first = pl.int_range(pl.len()) < 3
    changed = frame.with_columns(
        pl.when(first).then(pl.col("answer")).otherwise("prediction").alias("prediction"),
        pl.when(first).then(True).otherwise("correct").alias("correct"),
    )
    wrong = int((frame["prediction"].head(3) != frame["answer"].head(3)).sum())
    assert wrong and f"{wrong} letters are not the most probable" in check_headline({}, changed)[0]
    counted = frame.with_columns(pl.lit(True).alias("correct"))
    assert "against their own letters" in check_headline({}, counted)[0]
