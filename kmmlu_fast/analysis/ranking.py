"""The ranks that several runs may have, simultaneously at 95 %.

In: runs over the same questions, p-values that some pairs have already. Out: for each run the best and the
worst rank that the data allow. Pure. Knows nothing of words.

A run's rank is at least 1 + the number of runs shown to be better, and at most K less the number shown to be
worse. All K (K - 1) / 2 pairs are tested on the questions that all runs have (McNemar's mid-p), corrected by
Holm, so with 95 % confidence no run's true rank is outside its range (Mogstad, Romano, Shaikh and Wilhelm
2024, Rev Econ Stud 91:476).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from kmmlu_fast.analysis.paired import ALPHA, adjust_p_values, mcnemar_midp
from kmmlu_fast.runs.run import Run

FEWEST = 3  # with two runs, the comparison says it


@dataclass(frozen=True, slots=True)
class RankInterval:
    """One run's possible ranks; 1 is the best."""

    name: str
    best: int
    worst: int


def rank_runs(
    runs: Sequence[Run], against_first: Mapping[str, float | None] | None = None
) -> list[RankInterval]:
    """The runs' ranks, in their order; those with scores only are left out. [] for fewer than three, or if
    they share no question.

    ``against_first``: p-values of runs compared with the first, by name, corrected for more than these pairs
    (None: not compared); a pair counts as no more certain here.
    """
    answered = [run for run in runs if run.predictions is not None]
    right = _right_answers(answered)
    count = len(answered)
    if count < FEWEST or not right.shape[1]:
        return []
    better = right @ (1.0 - right).T  # [i, j]: questions that i got right and j did not
    first, second = np.triu_indices(count, 1)
    p_values = mcnemar_midp(
        np.rint(better[first, second]).astype(np.int64), np.rint(better[second, first]).astype(np.int64)
    )
    for place, other in enumerate(second):
        known = (against_first or {}).get(answered[other].name)
        if answered[first[place]] is runs[0] and known is not None:
            p_values[place] = max(p_values[place], known)
    shown = np.zeros((count, count), dtype=bool)
    shown[first, second] = adjust_p_values(p_values, "holm") < ALPHA
    shown |= shown.T
    wins = (shown & (better > better.T)).sum(axis=1)
    losses = (shown & (better < better.T)).sum(axis=1)
    return [
        RankInterval(run.name, 1 + int(lost), count - int(won))
        for run, won, lost in zip(answered, wins, losses, strict=True)
    ]


def _right_answers(runs: Sequence[Run]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(runs, questions): 1 where the answer is right, on the questions that all runs have."""
    if not runs:
        return np.zeros((0, 0))
    joined: pl.DataFrame | None = None
    for place, run in enumerate(runs):
        frame = run.frame.select("question_id", pl.col("correct").cast(pl.Float64).alias(str(place)))
        joined = frame if joined is None else joined.join(frame, on="question_id")
    assert joined is not None
    return np.ascontiguousarray(joined.drop("question_id").to_numpy().T)
