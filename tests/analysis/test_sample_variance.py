"""avg@k and its two sources of variance: known values, simulated coverage, and what has no spread."""

from __future__ import annotations

import numpy as np
import pytest

from bench.sample_worlds import draw_chances, measure_coverage
from kmmlu_fast.analysis.sample_variance import estimate_sampled_accuracy


def test_components_by_hand() -> None:
    found = estimate_sampled_accuracy(np.array([4, 2, 0, 2]), 4)  # shares 1, .5, 0, .5
    assert found.accuracy == 0.5
    assert found.sampling_variance == pytest.approx(0.125 * 4 / 3)
    assert found.question_variance == pytest.approx(1 / 6 - 0.125 / 3)
    assert found.sampling_share == pytest.approx((0.125 / 3) / (1 / 6))


def test_components_are_unbiased() -> None:
    random = np.random.default_rng(3)
    chances = draw_chances("spread", 40_000, random)
    found = estimate_sampled_accuracy(random.binomial(3, chances), 3)
    assert found.sampling_variance == pytest.approx(float((chances * (1 - chances)).mean()), abs=0.003)
    assert found.question_variance == pytest.approx(float(chances.var()), abs=0.003)


@pytest.mark.parametrize("world", ["even", "spread", "easy", "hard"])
@pytest.mark.parametrize(("n", "samples"), [(90, 4), (450, 8)])
def test_both_intervals_hold_the_truth_in_93_to_97_percent(world: str, n: int, samples: int) -> None:
    other, same = measure_coverage(world, n, samples, 11, 1500)
    assert 0.925 <= other <= 0.975 and 0.925 <= same <= 0.975  # two standard errors of 1,500 runs


@pytest.mark.parametrize("right", [[3, 3, 3], [0, 0], [3]])
def test_an_interval_is_never_a_point(right: list[int]) -> None:
    found = estimate_sampled_accuracy(np.array(right), 3)
    assert found.low < found.high and found.sampling_low is not None and found.sampling_high is not None
    assert found.sampling_low < found.sampling_high and found.low >= 0 and found.high <= 1


def test_one_sample_does_not_tell_the_sources_apart() -> None:
    found = estimate_sampled_accuracy(np.array([1, 0, 1]), 1)
    assert found.sampling_variance is None and found.sampling_share is None and found.low < found.high
