"""The planner: known answers, and what it does where nothing can be planned."""

import math

import numpy as np
import pytest

from kmmlu_fast.analysis.planning import (
    expect_discordance,
    forecast_answers,
    questions_for_effect,
    questions_for_fixed_size,
    questions_to_narrow,
    questions_until_decided,
    standard_error_of_recipe,
)
from kmmlu_fast.analysis.sequential.betting import first_verdict
from kmmlu_fast.analysis.sequential.control_variate import KnownQuestions, paired_stream


@pytest.mark.parametrize(
    ("difference", "fixed", "uniform"), [(0.005, 31_394, 17_249), (0.01, 7_847, 6_838), (0.02, 1_960, 2_003)]
)
def test_known_answers_at_a_discordance_of_a_tenth(difference, fixed, uniform):
    assert questions_for_fixed_size(difference, 0.1) == fixed
    assert questions_until_decided(difference, 0.1, 35_030, adaptive=False) == uniform
    assert questions_until_decided(difference, 0.1, 35_030, adaptive=True) < 0.7 * uniform
    assert questions_until_decided(-difference, 0.1, 35_030, adaptive=False) == uniform


def test_more_adapters_need_more_and_a_small_exam_never_more_than_it_has():
    four = questions_until_decided(0.01, 0.1, 35_030, adaptive=True, alpha=0.0125)
    assert four > questions_until_decided(0.01, 0.1, 35_030, adaptive=True)
    assert questions_until_decided(0.001, 0.1, 500, adaptive=False) <= 500
    # a large difference is decided before the adaptive order has gained anything
    assert questions_until_decided(0.1, 0.1, 35_030, adaptive=True) < 120


@pytest.mark.parametrize(("difference", "discordance"), [(0.2, 0.1), (0.0, 0.1), (0.1, 1.5)])
def test_what_cannot_be_is_refused(difference, discordance):
    with pytest.raises(ValueError, match="discordance"):
        questions_for_fixed_size(difference, discordance)


def test_discordance_follows_from_margins():
    right = np.array([True, True, False, False])
    none = expect_discordance(np.full(4, 30.0), right)
    even = expect_discordance(np.zeros(4), right)
    assert none == pytest.approx(0.0, abs=1e-9) and even == pytest.approx((0.5 + 0.5 / 3) / 2)
    assert 0 < expect_discordance(np.full(4, 0.5), right) < even
    assert math.isnan(expect_discordance(np.full(4, np.nan), right))
    assert expect_discordance(np.array([np.nan, 0.0, np.nan, np.nan]), right) == pytest.approx(0.5)


def test_standard_errors_of_seeds_are_the_audit_s():
    found = [standard_error_of_recipe(0.01, 0.1, n, seeds) for n in (35_030, 2_250) for seeds in (1, 3, 5)]
    assert found == pytest.approx([0.0101, 0.0059, 0.0047, 0.0120, 0.0079, 0.0068], abs=1e-4)


def test_a_forecast_is_near_what_it_takes():
    forecasts, needed = [], []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        first = draw.random(8000) < 0.5
        second = first ^ (draw.random(8000) < np.where(first, 0.06, 0.12))
        known = KnownQuestions(8000)
        needed.append(first_verdict(paired_stream(first, second, known), margin=None)[1] or 8000)
        forecasts.append(forecast_answers(paired_stream(first, second[:300], known), margin=None) or 8000)
    assert 0.3 < np.median(forecasts) / np.median(needed) < 3
    assert forecast_answers(paired_stream(first, second[:1], known)) is None
    same = paired_stream(first, first[:400], known)
    assert 400 < forecast_answers(same, margin=0.03) < 8000


def test_a_narrower_interval_takes_more_and_all_questions_are_enough():
    assert questions_to_narrow(1000, 35_030, 0.02, 0.02) == 1000
    assert 3400 < questions_to_narrow(1000, 35_030, 0.02, 0.01) < 4000
    assert questions_to_narrow(35_029, 35_030, 0.02, 0.0001) == 35_030


def test_questions_for_a_smaller_effect_grow_with_its_square() -> None:
    assert questions_for_effect(450, 0.06, 0.01) == 17_000  # 16,200, to two digits upwards
    assert questions_for_effect(100, 0.02, 0.01) == 400
    assert questions_for_effect(20, 0.03, 0.029) == 22
