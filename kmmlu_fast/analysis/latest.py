"""The latest result of a function of one frame: all pairs of a report have the same questions.

In: a function that takes a frame. Out: the same function, which computes once as long as it is asked about
the same object. Knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import polars as pl

Result = TypeVar("Result")


def keep_latest(compute: Callable[[pl.DataFrame], Result]) -> Callable[[pl.DataFrame], Result]:
    """``compute``, keeping its latest result; frames are told apart by identity."""
    latest: list[tuple[pl.DataFrame, Result]] = []

    @wraps(compute)
    def computed_once(frame: pl.DataFrame) -> Result:
        if not latest or latest[0][0] is not frame:
            latest[:] = [(frame, compute(frame))]
        return latest[0][1]

    return computed_once
