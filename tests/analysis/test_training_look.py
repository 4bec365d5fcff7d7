"""Looks: the paired difference, the band, collapse, and what stops a training; simulated null trainings."""

from __future__ import annotations

import numpy as np
import pytest

from kmmlu_fast.analysis.training_look import AnsweredQuestion, compare_with_start


def answers(key: str, predictions: str) -> dict[str, AnsweredQuestion]:
    pairs = zip(key, predictions, strict=True)
    return {f"q{place}": AnsweredQuestion(answer, letter) for place, (answer, letter) in enumerate(pairs)}


def test_difference_is_paired_by_question() -> None:
    before, now = answers("ABCD" * 10, "ABCA" * 10), answers("ABCD" * 10, "ABAD" * 10)
    look = compare_with_start(5, 1, now, before, {"ko": 3.0})
    assert look.accuracy == 0.75 and look.difference.value == 0.0
    assert look.p_value == 1.0  # ten gained, ten lost
    entry = look.log_entry("kmmlu")
    assert entry["kmmlu/difference_low"] < 0 < entry["kmmlu/difference_high"]
    assert entry["kmmlu/share_A"] == 0.5 and entry["forgetting/loss_ko"] == 3.0


def with_mass(masses: list[float | None]) -> dict[str, AnsweredQuestion]:
    return {f"q{place}": AnsweredQuestion("A", "A", mass) for place, mass in enumerate(masses)}


def test_letter_mass_is_the_mean_and_is_logged() -> None:
    look = compare_with_start(0, 0, with_mass([0.9, 0.7, 0.8, 0.6]), None, {})
    assert look.letter_mass == pytest.approx(0.75)
    assert look.log_entry("mine")["mine/letter_mass"] == look.letter_mass
    assert "probability" not in str(look)


def test_a_low_letter_mass_is_printed() -> None:
    look = compare_with_start(5, 1, with_mass([0.2, 0.1]), with_mass([0.9, 0.9]), {})
    assert str(look).endswith(
        "predicted A 100% B 0% C 0% D 0%, but the letters hold only 15% of the next token's probability"
    )


def test_a_letter_mass_that_is_not_known_is_not_logged() -> None:
    look = compare_with_start(0, 0, with_mass([None, None]), None, {})
    assert look.letter_mass is None and "mine/letter_mass" not in look.log_entry("mine")
    assert "probability" not in str(look)


def test_a_prefix_is_compared_with_its_own_questions() -> None:
    before = answers("A" * 60, "A" * 20 + "B" * 40)
    look = compare_with_start(5, 1, answers("A" * 20, "A" * 20), before, {})
    assert look.questions == 20 and look.difference.value == 0.0


def test_collapse_is_named_at_once_and_stops() -> None:
    key = "ABCD" * 25
    look = compare_with_start(5, 2, answers(key, "B" * 100), answers(key, key), {})
    assert look.collapsed == "B"
    assert "100% of the predictions are B" in look.stop_reason("collapsed")
    assert look.stop_reason(None) is None


def test_a_base_that_answers_one_letter_has_not_collapsed() -> None:
    key = "ABCD" * 25
    look = compare_with_start(5, 1, answers(key, "A" * 100), answers(key, "A" * 95 + "B" * 5), {})
    assert look.collapsed is None and look.stop_reason("worse") is None


def test_worse_needs_the_band_below_zero() -> None:
    key = "ABCD" * 25
    spread = "BCDA" * 10 + key[40:]  # forty wrong, letters as before
    look = compare_with_start(5, 1, answers(key, spread), answers(key, key), {})
    assert "worse than before training by 40.0%" in look.stop_reason("worse")
    assert look.stop_reason("collapsed") is None
    slightly = compare_with_start(5, 1, answers(key, "BCDA" + key[4:]), answers(key, key), {})
    assert slightly.stop_reason("worse") is None


@pytest.mark.parametrize("turnover", [0.02, 0.3])
def test_null_trainings_are_rarely_called_changed(turnover: float) -> None:
    """Answers drift, expected accuracy does not: any look of twenty excludes zero in at most 5 %."""
    draw = np.random.default_rng(3)
    wrong = 0
    for _ in range(100):
        right = draw.random(150) < 0.4
        start = {f"q{i}": AnsweredQuestion("A", "A" if each else "B") for i, each in enumerate(right)}
        for number in range(1, 21):
            redrawn = draw.random(150) < turnover
            right = np.where(redrawn, draw.random(150) < 0.4, right)
            now = {f"q{i}": AnsweredQuestion("A", "A" if each else "B") for i, each in enumerate(right)}
            if compare_with_start(number, number, now, start, {}).difference.excludes_zero:
                wrong += 1
                break
    assert wrong <= 5
