"""Exact intervals of a change: hand-computed cases, coverage, and the band over many looks."""

from __future__ import annotations

import numpy as np
import pytest

from kmmlu_fast.analysis.exact_band import (
    binomial_interval,
    exact_change_band,
    exact_change_interval,
    exact_change_p_value,
)


def test_binomial_interval_of_textbook_cases() -> None:
    # 0 of 10 at 95 %: 1 - 0.025^(1/10)
    assert binomial_interval(0, 10, 0.05) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert binomial_interval(10, 10, 0.05) == pytest.approx((0.025**0.1, 1.0))
    assert binomial_interval(0, 0, 0.05) == (0.0, 1.0)


def test_p_value_is_mcnemars_exact_test() -> None:
    assert exact_change_p_value(6, 0) == pytest.approx(2 * 0.5**6)
    assert exact_change_p_value(0, 0) == 1.0
    assert exact_change_p_value(3, 3) == 1.0


def test_interval_contains_the_estimate_and_turns_with_the_sign() -> None:
    up, down = exact_change_interval(30, 5, 200), exact_change_interval(5, 30, 200)
    assert up.low < up.value < up.high and up.value == pytest.approx(0.125)
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low))
    assert up.excludes_zero and not exact_change_interval(12, 8, 200).excludes_zero


def test_nothing_changed_leaves_zero_in_a_narrow_interval() -> None:
    interval = exact_change_interval(0, 0, 450)
    assert interval.low == -interval.high < 0 < interval.high < 0.03


@pytest.mark.parametrize(("gain", "loss"), [(0.05, 0.05), (0.10, 0.02), (0.01, 0.005)])
def test_interval_covers_the_expected_change(gain: float, loss: float) -> None:
    draw = np.random.default_rng(1)
    counts = draw.multinomial(200, [gain, loss, 1 - gain - loss], size=1000)
    inside = 0
    for gained, lost, _ in counts:
        interval = exact_change_interval(int(gained), int(lost), 200)
        inside += interval.low <= gain - loss <= interval.high
    assert inside >= 950


def test_a_later_look_has_a_wider_band() -> None:
    first, later = exact_change_band(30, 10, 200, 1), exact_change_band(30, 10, 200, 8)
    assert later.low < first.low < first.high < later.high
    assert first.excludes_zero and not later.excludes_zero
