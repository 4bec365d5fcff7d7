"""The latest result of a function of one object: all pairs of a report have the same questions.

In: a function that takes one object. Out: the same function, which computes once as long as it is asked about
the same object. Knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def keep_latest(compute: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    """``compute``, keeping its latest result; objects are told apart by identity."""
    latest: list[tuple[Argument, Result]] = []

    @wraps(compute)
    def computed_once(argument: Argument) -> Result:
        known = latest[0] if latest else None
        if known is None or known[0] is not argument:
            known = (argument, compute(argument))
            latest[:] = [known]
        return known[1]  # not ``latest``'s, which another thread may have replaced

    return computed_once
