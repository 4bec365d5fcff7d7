"""Weighted orders: drawn with the right chances, and unbiased however they are redrawn."""

from itertools import permutations

import numpy as np
import pytest

from kmmlu_fast.analysis.sequential import betting
from kmmlu_fast.analysis.sequential.control_variate import KnownQuestions, accuracy_stream, paired_stream
from kmmlu_fast.analysis.sequential.sampling_weights import (
    DrawnWeights,
    draw_order,
    list_look_places,
    list_redraw_places,
    make_change_weights,
    make_start_weights,
)

FIRST = np.array([1, 1, 0, 0, 1], dtype=bool)
SECOND = np.array([1, 0, 1, 1, 1], dtype=bool)
START = np.array([10, 200, 30, 255, 60], dtype=np.uint8)
EASE = np.array([0.9, 0.5, 0.4, 0.6, 0.8])


def _later_weights(order):
    """Weights from the first two answers: what the adaptive order does, in small."""
    gained = SECOND[order[:2]].sum()
    return np.array([255, 50, 20, 90, 120] if gained else [20, 255, 80, 10, 40], dtype=np.uint8)


def _chance(order, weights_by_place):
    """The probability of drawing the questions in this order."""
    chance = 1.0
    for place in range(len(order)):
        weights = weights_by_place(place).astype(float)
        chance *= weights[order[place]] / weights[order[place:]].sum()
    return chance


def _weighted_orders():
    """Every order of five questions with its chance, redrawn after two answers."""
    for order in map(list, permutations(range(5))):
        later = _later_weights(order)
        chance = _chance(order, lambda place, later=later: START if place < 2 else later)
        yield order, chance, DrawnWeights((0, 2), (START[order], later[order]))


@pytest.mark.parametrize(("kind", "mean"), [("paired", 1 / 5), ("unknown base", 1 / 5), ("accuracy", 4 / 5)])
@pytest.mark.parametrize("side", [1, -1])
def test_over_all_orders_the_capital_at_the_true_mean_stays_1_on_average(kind, mean, side):
    total, chances = np.zeros(5), 0.0
    for order, chance, weights in _weighted_orders():
        known = KnownQuestions(5, EASE[order], None, None, weights)
        if kind == "accuracy":
            stream = accuracy_stream(SECOND[order], known, refits=[1, 3])
        else:
            ahead = kind == "paired"
            stream = paired_stream(FIRST[order], SECOND[order], known, refits=[1, 3], ahead=ahead)
        capital = np.exp(betting.log_capital(stream, mean, side))
        assert (capital > 0).all()
        assert (stream.value >= stream.least - 1e-12).all() and (stream.value <= stream.most + 1e-12).all()
        total += chance * capital
        chances += chance
    assert chances == pytest.approx(1.0) and total == pytest.approx(np.ones(5), abs=1e-9)


def test_without_the_weights_the_same_orders_would_be_biased():
    total = np.zeros(5)
    for order, chance, _ in _weighted_orders():
        stream = paired_stream(FIRST[order], SECOND[order], KnownQuestions(5, EASE[order]), refits=[1, 3])
        total += chance * np.exp(betting.log_capital(stream, 1 / 5, 1))
    assert abs(total - 1).max() > 0.01


def test_clocks_draw_each_question_first_as_often_as_its_weight_says():
    weights = np.array([255, 51, 204, 0 + 1, 127], dtype=np.uint8)
    first = np.bincount([draw_order(weights, seed, 0)[0] for seed in range(4000)], minlength=5) / 4000
    assert first == pytest.approx(weights / weights.sum(), abs=0.03)


def test_a_draw_depends_on_seed_and_place_alone():
    weights = np.full(50, 255, dtype=np.uint8)
    assert np.array_equal(draw_order(weights, 3, 0), draw_order(weights, 3, 0))
    assert not np.array_equal(draw_order(weights, 3, 0), draw_order(weights, 4, 0))
    assert not np.array_equal(draw_order(weights, 3, 0), draw_order(weights, 3, 225))
    assert not np.array_equal(draw_order(weights, 3, 0), draw_order(weights, -3, 0))


def test_a_small_margin_and_an_unknown_one_count_most():
    weights = make_start_weights(np.array([0.0, 0.5, 1.0, 50.0, np.nan]))
    assert weights[0] == weights[4] == 255 and weights[0] > weights[1] > weights[2] > weights[3] == 51
    for nothing in ([np.nan, np.nan], [0.0, 0.0], []):
        assert (make_start_weights(np.array(nothing)) == 255).all()


def test_change_weights_are_the_standard_deviation_of_an_answer():
    weights = make_change_weights([np.array([0.5, 0.9, 0.999, 1.0])])
    assert weights.tolist() == [255, round(255 * 0.3 / 0.5), 38, 38]
    two = make_change_weights([np.array([0.5, 0.999]), np.array([0.999, 0.5])])
    assert two[0] == two[1] == 255  # one adapter may change the first, the other the second


def test_redraws_come_after_a_growing_number_of_answers():
    assert list_redraw_places(35_030)[:4] == [225, 337, 506, 759] and list_redraw_places(35_030)[-1] < 35_030
    looks = list_look_places(35_030)
    assert looks[:5] == [225, 257, 295, 337, 386] and looks[-1] == 35_030
    assert set(list_redraw_places(35_030)) < set(looks) and list_look_places(1) == [1]
    assert list_redraw_places(200)[0] == 25 and list_redraw_places(20) == [] == list_redraw_places(1)


def test_a_part_of_the_questions_keeps_its_weights():
    weights = DrawnWeights((0, 2), (START, START[::-1].copy()))
    part = weights.select_questions(np.array([1, 0, 1, 1, 0], dtype=bool))
    assert part.starts == (0, 1) and part.values[0].tolist() == [10, 30, 255]
    assert part.at_place(0) is part.values[0] and part.at_place(1) is part.values[1]
