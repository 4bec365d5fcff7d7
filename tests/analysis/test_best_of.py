"""The best of several adapters without the luck of being chosen."""

import numpy as np
import pytest

from kmmlu_fast.analysis.best_of import shrink_best


@pytest.mark.parametrize(("count", "spread"), [(6, 0.3), (24, 0.3), (24, 1.0), (6, 2.0)])
def test_no_bias_and_the_interval_covers(count: int, spread: float) -> None:
    """The plain best of 24 is 0.97 too large, and its interval covers 81 %."""
    random, error = np.random.default_rng(count), 0.8
    off, inside = [], []
    for _ in range(1500):
        true = random.normal(0, spread, count)
        seen = true + random.normal(0, error * 0.5**0.5) + random.normal(0, error * 0.5**0.5, count)
        shrunk = shrink_best(list(seen), [error] * count)
        assert shrunk is not None
        off.append(shrunk.value - true[seen.argmax()])
        inside.append(shrunk.low <= true[seen.argmax()] <= shrunk.high)
    assert abs(np.mean(off)) < 0.12 and 0.93 <= np.mean(inside) <= 0.985


def test_two_tried_are_too_few() -> None:
    assert shrink_best([0.1, 0.2], [0.1, 0.1]) is None and shrink_best([0.1] * 3, [0.0] * 3) is None
