"""Measurements with known faults become the sentence that names them; good ones are never blamed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_weights import NORM, K, Q, on_grid, tensor, weights

from kmmlu_fast.shipping.diagnosis import Measurements, TextStatistics, diagnose
from kmmlu_fast.shipping.letter_shifts import LetterComparison
from kmmlu_fast.shipping.text_comparison import TextComparison

GOOD = LetterComparison(
    questions=200,
    divergence=0.0002,
    same_letters=200,
    changed_beyond_ties=0,
    reference_shift=0.5,
    difference=0.01,
    slope=1.0,
    slope_low=0.99,
    slope_high=1.01,
    key_change=0.0,
    key_change_error=0.0005,
)


def names(found: Measurements, margin: float = 0.5) -> list[str]:
    return [cause.name for cause in diagnose(found, margin).causes]


BASE = Measurements(quantisation=None, letters=GOOD)


def test_a_right_merge_is_the_same() -> None:
    found = replace(BASE, weights=weights(tensor(Q, 1.0), tensor(NORM)))
    assert diagnose(found, 0.5).verdict == "same" and diagnose(found, 0.5).is_safe


def test_every_fault_of_the_files_is_named_and_the_letters_are_not_asked() -> None:
    texts = TextComparison(texts=20, different=3)
    found = replace(BASE, texts=texts, settings=("rope_theta",), initialisation="pissa")
    found = replace(found, weights=weights(tensor(Q, 2.0)), letters=replace(GOOD, divergence=0.2))
    assert names(found) == ["pissa", "settings", "tokenizer", "twice"]
    assert not diagnose(found, 0.5).is_safe


def test_quantisation_loss_is_named_and_not_the_adapter() -> None:
    letters = replace(GOOD, divergence=0.2, same_letters=150, changed_beyond_ties=20, slope=0.6)
    packed = weights(tensor(Q, 1.0, residual=0.07, stored_as="Q4_K"))
    found = Measurements(quantisation="Q4_K", letters=letters, weights=packed)
    assert names(found) == ["quantisation"] and "50 of 200 letters" in diagnose(found, 0.5).sentence


@pytest.mark.parametrize(("slope", "name"), [(0.0, "not applied"), (2.0, "twice"), (0.5, "scale")])
def test_slopes_of_letters_where_weights_cannot_be_read(slope: float, name: str) -> None:
    letters = replace(
        GOOD, divergence=0.1, slope=slope, slope_low=slope - 0.05, slope_high=slope + 0.05, difference=0.2
    )
    assert names(Measurements(quantisation=None, letters=letters)) == [name]


@pytest.mark.parametrize(
    ("slope", "difference", "name"),
    [(0.01, 0.05, "not applied"), (1.92, 0.049, "twice"), (0.49, 0.026, "scale"), (1.25, 0.015, "scale")],
)
def test_a_scale_is_named_although_the_letters_are_close(slope: float, difference: float, name: str) -> None:
    """A gentle adapter that a server does not apply changes letters less than rounding is allowed to."""
    letters = replace(GOOD, divergence=0.0012, slope=slope, slope_low=slope - 0.04, slope_high=slope + 0.04)
    letters = replace(letters, reference_shift=0.05, difference=difference)
    assert names(Measurements(quantisation=None, letters=letters)) == [name]
    packed = names(Measurements(quantisation="AWQ", letters=letters))
    assert packed == ([] if 0.15 < slope < 1.3 else [name])  # which quantisation may flatten too


def test_rounding_of_the_references_letters_flattens_the_slope_and_is_no_scale() -> None:
    # shift 0.02 nats and rounding of 0.02 in each of the three: the slope of a right artefact is 2/3
    letters = replace(GOOD, divergence=0.0005, slope=0.67, slope_low=0.6, slope_high=0.73)
    letters = replace(letters, reference_shift=0.0346, difference=0.0283)
    assert names(Measurements(quantisation=None, letters=letters)) == []


def test_texts_that_do_not_end() -> None:
    ends, does_not = (TextStatistics(texts=20, stopped=n, repeating=0, with_marks=0) for n in (18, 2))
    assert names(replace(BASE, generated=does_not, reference_generated=ends)) == ["stop"]
    assert names(replace(BASE, generated=does_not, reference_generated=does_not)) == []


def test_equal_within_the_margin_and_undecided() -> None:
    letters = replace(GOOD, divergence=0.01, same_letters=197, key_change=0.001, key_change_error=0.001)
    found = diagnose(Measurements(quantisation="Q8_0", letters=letters), 0.5)
    assert found.verdict == "equal" and "equal within 0.5 pp" in found.sentence
    wide = replace(letters, key_change_error=0.02)
    found = diagnose(Measurements(quantisation="Q8_0", letters=wide), 0.5)
    assert found.verdict == "undecided" and not found.is_safe
    bare = replace(letters, key_change=0.0, key_change_error=0.00503 / 1.645)
    found = diagnose(Measurements(quantisation="Q8_0", letters=bare), 0.5)
    assert "within 0.51 pp, not yet within 0.5 (" in found.sentence


def test_undecided_says_how_many_questions_would_tell_and_where_they_are() -> None:
    # 1.645 · 0.01 · sqrt(200 / n) = 0.005 - 0.001: n = 200 · 4.1125² = 3,382.5
    letters = replace(GOOD, divergence=0.01, key_change=0.001, key_change_error=0.01)
    found = Measurements(quantisation="Q8_0", letters=letters)
    assert "; ask about 3,400 --questions, or allow a wider --margin" in diagnose(found, 0.5).sentence
    few = "; --dataset sample has 2,000 questions, about 3,400 would tell: give another one, or allow"
    assert few in diagnose(replace(found, dataset="sample", available=2000), 0.5).sentence
    assert "; ask about 3,400" in diagnose(replace(found, dataset="sample", available=3400), 0.5).sentence
    beyond = replace(found, letters=replace(letters, key_change=-0.006), dataset="sample")
    assert "; ask more --questions" in diagnose(replace(beyond, available=201), 0.5).sentence
    assert "has 200 questions, more would tell" in diagnose(replace(beyond, available=200), 0.5).sentence


ROUNDED = weights(on_grid(Q, 0.66), on_grid(K, 0.94), on_grid(K + "2", 0.75), float32_bytes=1_072_000_000)


def test_rounding_is_no_other_scale_and_is_judged_by_letters() -> None:
    near = replace(GOOD, same_letters=190, divergence=0.0013, slope=0.93, slope_low=0.92, slope_high=0.95)
    near = replace(near, widest_tie=0.06, median_margin=0.09)
    found = diagnose(replace(BASE, weights=ROUNDED, letters=near), 0.5)
    assert found.verdict == "equal" and found.is_safe
    for part in (
        "190 of 200",
        "0.06 nats",
        "0.09",
        "keeps 78 %",
        "66 to 94 %",
        "float32 (1.1 GB)",
        "93 % of the adapter's effect",
    ):
        assert part in found.sentence
    wide = replace(near, key_change_error=0.02)
    assert diagnose(replace(BASE, weights=ROUNDED, letters=wide), 0.5).verdict == "undecided"


def test_rounding_that_takes_the_effect_differs() -> None:
    lost = replace(GOOD, divergence=0.01, slope=0.7, slope_low=0.65, slope_high=0.75, same_letters=150)
    found = diagnose(replace(BASE, weights=ROUNDED, letters=lost), 0.5)
    assert [cause.name for cause in found.causes] == ["rounding"]
    assert "70 % of the adapter's effect on the letters is left" in found.sentence
    # Letters that the adapter hardly moves excuse no weights that hold next to nothing of it.
    gone = weights(on_grid(Q, 0.05), on_grid(K, 0.1))
    silent = replace(GOOD, slope=None, reference_shift=0.01)
    assert names(replace(BASE, weights=gone, letters=silent)) == ["rounding"]


def test_an_adapter_that_is_rounded_away_is_quantisation_loss() -> None:
    packed = [tensor(Q, 0.03, 0.01, "Q8_0"), tensor(K, 0.9, 0.01, "Q8_0"), tensor(K + "2", 0.4, 0.01, "Q8_0")]
    letters = replace(GOOD, divergence=0.02, same_letters=55, changed_beyond_ties=15)
    letters = replace(letters, slope=0.64, slope_low=0.62, slope_high=0.65)
    found = diagnose(Measurements(quantisation="Q8_0", letters=letters, weights=weights(*packed)), 0.5)
    assert [cause.name for cause in found.causes] == ["quantisation"]
    for part in (
        "because after quantisation (Q8_0) the weights hold",
        "3 to 90 %",
        "64 % of the adapter's effect",
        "145 of 200 letters change",
    ):
        assert part in found.sentence


def test_more_effect_than_the_reference_has_is_not_called_left() -> None:
    letters = replace(GOOD, divergence=0.1, slope=1.35, slope_low=1.11, slope_high=1.57)
    packed = weights(tensor(Q, 1.0, residual=0.07, stored_as="Q4_K"))
    found = diagnose(Measurements(quantisation="Q4_K", letters=letters, weights=packed), 0.5)
    assert "; the adapter moves the letters 1.35 times as far (1.11 to 1.57);" in found.sentence
    assert "is left" not in found.sentence


def test_near_ties_are_told_with_their_size() -> None:
    letters = replace(GOOD, same_letters=193, widest_tie=0.04, median_margin=0.5)
    found = diagnose(replace(BASE, letters=letters), 0.5)
    assert found.verdict == "same" and found.sentence.startswith("the same but for near ties")
    assert "7 others within near ties: at most 0.04 nats" in found.sentence


def test_nothing_left_of_an_adapter_on_a_grid_may_be_rounding() -> None:
    lost = replace(GOOD, divergence=0.03, slope=0.0, slope_low=-0.02, slope_high=0.02)
    on_q4, off_q4 = (weights(*(tensor(f"{Q}{n}", 0.0, r, "Q4_K") for n in range(3))) for r in (0.002, 0.08))
    found = diagnose(Measurements(quantisation="Q4_K", letters=lost, weights=on_q4), 0.5)
    assert [cause.name for cause in found.causes] == ["quantisation"]
    assert "rounded away, or never applied" in found.sentence
    assert names(Measurements(quantisation="Q4_K", letters=lost, weights=off_q4)) == ["not applied"]
