"""How easy each KMMLU test question was for 25 public models: one number a question, for the sequential
test's expectations.

In: question ids. Out: numbers, larger = easier, NaN where a question is not in the table (another exam,
another split). The table is packaged (``public/``, source and date in its README);
``scripts/build_difficulty.py`` makes it. Knows nothing of statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

TABLE = Path(__file__).parent / "public" / "difficulty.parquet"
_DRAWN = 4.0  # models' worth of the subject's mean: what a share of few models is drawn to


def estimate_ease(right: NDArray[np.bool_], subjects: Sequence[str]) -> NDArray[np.float64]:
    """(questions,) share of models that are right, drawn to the subject's; ``right``: (models, questions)."""
    models = len(right)
    names = np.unique(np.asarray(subjects), return_inverse=True)[1]
    shares = right.mean(axis=0)
    by_subject = np.bincount(names, shares) / np.bincount(names)
    return np.asarray((right.sum(axis=0) + _DRAWN * by_subject[names]) / (models + _DRAWN), dtype=np.float64)


def public_ease(question_ids: Sequence[str]) -> NDArray[np.float64] | None:
    """(questions,) the packaged numbers, 0-1; None where the table knows fewer than half of the questions."""
    table = _load_ease_table()
    found = np.array([table.get(question_id, np.nan) for question_id in question_ids])
    return found if len(found) and np.isnan(found).mean() <= 0.5 else None


@cache
def _load_ease_table() -> dict[str, float]:
    frame = pl.read_parquet(TABLE)
    return dict(zip(frame["question_id"], frame["ease"], strict=True))
