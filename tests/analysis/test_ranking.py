"""Ranks: only differences that are shown separate runs, whatever their number."""

from __future__ import annotations

import numpy as np
import polars as pl
from made_runs import loaded

from kmmlu_fast.analysis.ranking import RankInterval, rank_runs
from kmmlu_fast.runs.run import Run


def made(name: str, right: np.ndarray) -> Run:
    answers = ["A" if one else "B" for one in right]
    ids = [f"Law/test/{place}" for place in range(len(right))]
    frame = pl.DataFrame({"question_id": ids, "answer": "A", "prediction": answers, "correct": list(right)})
    columns = (pl.lit("Law").alias("subject"), pl.lit("HUMSS").alias("supercategory"))
    return loaded(name, frame.with_columns(*columns))


def answers(draw: np.random.Generator, share: float, total: int = 2_000) -> np.ndarray:
    return draw.random(total) < share


def test_shown_differences_bound_the_ranks() -> None:
    draw = np.random.default_rng(0)
    runs = [made(name, answers(draw, share)) for name, share in (("a", 0.5), ("b", 0.5), ("c", 0.7))]
    assert rank_runs(runs) == [RankInterval("a", 2, 3), RankInterval("b", 2, 3), RankInterval("c", 1, 1)]


def test_what_was_corrected_for_more_counts_as_no_more_certain() -> None:
    draw = np.random.default_rng(0)
    runs = [made(name, answers(draw, share)) for name, share in (("a", 0.5), ("b", 0.5), ("c", 0.7))]
    ranks = rank_runs(runs, {"c": 0.2, "b": None})
    assert ranks == [RankInterval("a", 1, 3), RankInterval("b", 2, 3), RankInterval("c", 1, 2)]


def test_two_runs_and_runs_without_common_questions_have_no_ranks() -> None:
    draw = np.random.default_rng(1)
    runs = [made(name, answers(draw, 0.5, 50)) for name in "ab"]
    assert rank_runs(runs) == []
    other = made("c", answers(draw, 0.5, 50))
    assert other.predictions is not None
    elsewhere = other.predictions.with_columns(pl.lit("x/").add(pl.col("question_id")).alias("question_id"))
    assert rank_runs([*runs, loaded("c", elsewhere)]) == []


def test_no_true_rank_is_outside_in_95_percent() -> None:
    """Eight runs of one accuracy: every rank is possible for each of them."""
    draw = np.random.default_rng(2)
    wrong = 0
    for _ in range(60):
        common, runs = draw.random(400), []
        for name in "abcdefgh":
            own = np.where(draw.random(400) < 0.8, common, draw.random(400))
            runs.append(made(name, own < 0.6))
        wrong += any(rank.best > 1 or rank.worst < 8 for rank in rank_runs(runs))
    assert wrong <= 7  # 5 % and two standard errors of 60
