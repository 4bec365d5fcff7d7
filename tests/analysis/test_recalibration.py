"""A sharpened, cooled or shifted model knows no more."""

import numpy as np
import pytest

from kmmlu_fast.analysis.endpoints import compare_endpoints
from kmmlu_fast.analysis.recalibration import recalibrate_logprobs
from kmmlu_fast.analysis.softmax import log_softmax_last_axis


def pair(random: np.random.Generator, n: int, gain: float, scale: float, pull: float) -> list[np.ndarray]:
    key, common = random.integers(0, 4, n), random.normal(size=(n, 4))
    sides = []
    for strength, factor, shift in ((1.0, 1.0, 0.0), (1.0 + gain, scale, pull)):
        values = common + 0.5 * random.normal(size=(n, 4)) + strength * np.eye(4)[key]
        values[:, 0] += shift
        sides.append(log_softmax_last_axis(factor * values))
    return [key, *sides]


@pytest.mark.parametrize(("scale", "pull"), [(1.8, 0.0), (0.6, 0.0), (1.8, -1.0)])
def test_temperature_and_habit_alone_are_not_called_a_change(scale: float, pull: float) -> None:
    random = np.random.default_rng(1)
    strata = np.zeros(450, dtype=np.int64)
    claims = 0
    for _ in range(150):
        key, one, other = pair(random, 450, 0.0, scale, pull)
        claims += compare_endpoints(key, strata, one, other)[0].better != 0
    assert claims <= 150 * 0.05 + 2 * (150 * 0.05 * 0.95) ** 0.5


def test_a_sharpened_gain_is_a_gain() -> None:
    """Sharpening costs more log score than the gain brings: uncorrected it "says the opposite"."""
    random = np.random.default_rng(2)
    strata = np.zeros(450, dtype=np.int64)
    found = []
    for _ in range(20):
        key, one, other = pair(random, 450, 0.4, 2.5, 0.0)
        found.append(compare_endpoints(key, strata, one, other)[0].better)
    assert min(found) >= 0 and np.mean(found) > 0.8


def test_missing_options_stay_missing_and_few_questions_as_they_are() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(80, 5))
    values[:40, 4] = -np.inf
    fitted = recalibrate_logprobs(np.zeros(80, dtype=np.int64), log_softmax_last_axis(values))
    assert np.isneginf(fitted[:40, 4]).all() and np.allclose(np.exp(fitted).sum(axis=1), 1.0)
    few = log_softmax_last_axis(values[:10])
    assert recalibrate_logprobs(np.zeros(10, dtype=np.int64), few) is few
