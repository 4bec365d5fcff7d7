"""Slopes, divergences and flips of paired letters against numbers known beforehand."""

from __future__ import annotations

import random

import pytest

from kmmlu_fast.shipping.letter_shifts import compare_letters


def rows(seed: int, count: int = 60, size: float = 1.5) -> list[list[float]]:
    draw = random.Random(seed)
    return [[draw.gauss(-3, size) for _ in range(4)] for _ in range(count)]


def moved(
    base: list[list[float]], shift: list[list[float]], factor: float, offset: float = 0.0
) -> list[list[float]]:
    return [
        [value + factor * change + offset for value, change in zip(row, changes, strict=True)]
        for row, changes in zip(base, shift, strict=True)
    ]


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7, 2.0])
def test_slope_is_the_factor_of_the_change(factor: float) -> None:
    base, shift = rows(1), rows(2, size=0.4)
    found = compare_letters(base, moved(base, shift, 1.0), moved(base, shift, factor, offset=0.3), [0] * 60)
    assert found.slope == pytest.approx(factor, abs=1e-9)
    assert found.slope_low <= factor + 1e-9 and found.slope_high >= factor - 1e-9


def test_equal_letters_have_no_divergence() -> None:
    base, shift = rows(1), rows(2, size=0.4)
    same = moved(base, shift, 1.0)
    found = compare_letters(base, same, moved(same, shift, 0.0, offset=1.0), [1] * 60)  # all letters alike
    assert found.divergence == pytest.approx(0, abs=1e-12) and found.same_letters == 60
    assert found.key_bound == pytest.approx(0, abs=1e-12)


def test_no_slope_where_the_adapter_moves_nothing() -> None:
    base = rows(3)
    assert compare_letters(base, moved(base, rows(4), 1e-4), rows(5), [0] * 60).slope is None


def test_gained_and_lost_are_by_the_key() -> None:
    reference, artefact = [[0.0, -5, -5, -5], [-5, 0.0, -5, -5]], [[-5, 0.0, -5, -5], [0.0, -5, -5, -5]]
    found = compare_letters(reference, reference, artefact, [0, 0])
    assert (found.lost, found.gained, found.same_letters, found.changed_beyond_ties) == (1, 1, 0, 2)


def test_options_of_other_numbers_go_together() -> None:
    base = [[-1.0, -2.0], [-1.0, -2.0, -3.0, -4.0, -5.0]]
    assert compare_letters(base, base, base, [0, 4]).questions == 2
