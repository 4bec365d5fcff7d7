"""A leak is claimed where there is one, and not where subjects, keys or chance differ."""

import numpy as np
import pytest

from kmmlu_fast.analysis.overlap_gap import estimate_overlap_gap


def questions(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subjects and keys that overlap to different degrees."""
    strata, key = random.integers(0, 9, n), random.choice(4, size=n, p=[0.1, 0.3, 0.3, 0.3])
    return strata, key, random.random(n) < 0.02 + 0.02 * strata + 0.1 * (key == 0)


@pytest.mark.parametrize("world", ["nothing", "subject gain", "letter habit", "rarely"])
def test_no_leak_is_claimed_where_there_is_none(world: str) -> None:
    random = np.random.default_rng(3)
    claimed = 0
    for _ in range(300):
        strata, key, overlaps = questions(1500, random)
        change = random.choice([-1.0, 0.0, 1.0], 1500, p=[0.06, 0.88, 0.06])
        if world == "subject gain":
            change = np.where((strata > 6) & (random.random(1500) < 0.1), 1.0, change)
        if world == "letter habit":
            change = np.where((key == 0) & (random.random(1500) < 0.4), -1.0, change)
        if world == "rarely":
            change = np.where(random.random(1500) < 0.995, 0.0, change)
        gap = estimate_overlap_gap(change, strata, key, overlaps)
        claimed += gap is not None and gap.significant
    assert claimed <= 300 * 0.05 + 2 * (300 * 0.05 * 0.95) ** 0.5


def test_a_leak_is_found_and_few_questions_are_silent() -> None:
    random = np.random.default_rng(4)
    strata, key, overlaps = questions(2000, random)
    change = random.choice([-1.0, 0.0, 1.0], 2000, p=[0.06, 0.88, 0.06])
    leaked = np.where(overlaps & (random.random(2000) < 0.25), 1.0, change)
    gap = estimate_overlap_gap(leaked, strata, key, overlaps)
    assert gap is not None and gap.low > 0.1
    assert estimate_overlap_gap(leaked[:120], strata[:120], key[:120], overlaps[:120]) is None
