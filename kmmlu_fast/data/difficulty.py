"""How easy each KMMLU test question was for 25 public models: the sequential test's expectations.

In: question ids. Out: one number per question, larger = easier, NaN if the question is not in the packaged
table (``public/``; its README gives source and date). ``scripts/build_difficulty.py`` builds the table.
Knows nothing of statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

TABLE = Path(__file__).parent / "public" / "difficulty.parquet"
_PRIOR_MODELS = 4.0  # weight of the subject's mean, in models, in each question's share


def estimate_ease(right: NDArray[np.bool_], subjects: Sequence[str]) -> NDArray[np.float64]:
    """(questions,) share of models that are right, shrunk to its subject's; ``right`` (models, questions)."""
    models = len(right)
    names = np.unique(np.asarray(subjects), return_inverse=True)[1]
    shares = right.mean(axis=0)
    by_subject = np.bincount(names, shares) / np.bincount(names)
    ease = (right.sum(axis=0) + _PRIOR_MODELS * by_subject[names]) / (models + _PRIOR_MODELS)
    return np.asarray(ease, dtype=np.float64)


def public_ease(question_ids: Sequence[str]) -> NDArray[np.float64] | None:
    """(questions,) the packaged numbers, 0-1; None if the table has fewer than half of the questions."""
    table = _load_ease_table()
    ease = np.array([table.get(question_id, np.nan) for question_id in question_ids])
    return ease if len(ease) and np.isnan(ease).mean() <= 0.5 else None


@cache
def _load_ease_table() -> dict[str, float]:
    frame = pl.read_parquet(TABLE)
    return dict(zip(frame["question_id"], frame["ease"], strict=True))
