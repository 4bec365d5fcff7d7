"""The unpaired interval against Newcombe's own example and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from kmmlu_fast.analysis.unpaired import unpaired_difference


def test_newcombes_example() -> None:
    # Newcombe 1998, table II, (a): 56/70 against 48/80, method 10
    found = unpaired_difference(56, 70, 48 / 80, 80)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_it_covers() -> None:
    random = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        one, other = random.binomial(450, 0.6), random.binomial(900, 0.55)
        found = unpaired_difference(one, 450, other / 900, 900)
        covered.append(found.low <= 0.05 <= found.high)
    assert 0.92 < np.mean(covered) < 0.98
