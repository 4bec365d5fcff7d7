"""What 16-bit rounding keeps of a change: little of small ones, all of large ones."""

from __future__ import annotations

import numpy as np
import pytest

from kmmlu_fast.shipping.rounding import (
    KeptChange,
    find_applied_scale,
    find_grid,
    measure_kept_share,
    round_to_grid,
)

NOISE = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32)
WEIGHTS, CHANGE = round_to_grid(NOISE[0], "bfloat16"), NOISE[1]


def test_small_changes_of_weights_on_the_grid_are_lost() -> None:
    shares = [measure_kept_share(WEIGHTS, size * CHANGE, "bfloat16") for size in (1e-5, 1e-3, 3e-3, 0.1)]
    assert shares == sorted(shares) and shares[0] < 0.1 and 0.3 < shares[1] < 0.95 and shares[3] > 0.99
    assert measure_kept_share(WEIGHTS, 1e-3 * CHANGE, "float16") > shares[1]
    assert measure_kept_share(WEIGHTS, 1e-3 * CHANGE, "float32") == pytest.approx(1, abs=1e-3)


def test_small_changes_of_weights_off_the_grid_average_out() -> None:
    whole = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32)
    added = 0.01 * np.random.default_rng(2).standard_normal((512, 512)).astype(np.float32)
    assert measure_kept_share(whole, added, "bfloat16") == pytest.approx(1, abs=0.02)


def test_no_change_loses_nothing() -> None:
    assert measure_kept_share(WEIGHTS, 0 * CHANGE, "bfloat16") == 1


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32"])
def test_the_grid_is_read_from_the_values(kind: str) -> None:
    assert find_grid(round_to_grid(NOISE[0], kind)) == kind


@pytest.mark.parametrize("factor", [0.25, 1.0, 2.0, -1.0])
def test_the_scale_under_the_rounding(factor: float) -> None:
    change = 2e-3 * CHANGE
    kept = measure_kept_share(WEIGHTS, change, "bfloat16")
    slope = factor * measure_kept_share(WEIGHTS, factor * change, "bfloat16")
    assert find_applied_scale(WEIGHTS, change, "bfloat16", slope, kept) == pytest.approx(factor, rel=0.05)


def test_the_range_in_words() -> None:
    kept = KeptChange(modules=126, low=-0.001, high=0.943, share=0.776)
    assert kept.describe() == "78 % of the adapter's change (0 to 94 % by module)" and not kept.is_enough
    assert not KeptChange(modules=1, low=1.4, high=1.4, share=1.4).is_enough
    assert KeptChange(modules=1, low=1, high=1, share=1).describe() == "100 % of the adapter's change"
    grown = KeptChange(modules=2, low=-0.02, high=1.74, share=1.33)
    assert grown.describe() == "1.33 times the adapter's change (0.00 to 1.74 times by module)"
