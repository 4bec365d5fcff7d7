"""The two letter models: their tables by hand, fits and influences against their definitions, and the habit
effect on data with a known truth.
"""

from __future__ import annotations

import numpy as np
import pytest

from kmmlu_fast.analysis.letter_bias import letter_models as models
from kmmlu_fast.analysis.letter_bias.letter_models import Floats

KEY = np.array([0.1, 0.3, 0.3, 0.3])
MIXTURE = np.array([0.05, 0.1, 0.15, 0.3])  # knows 0.4
CHOICE = np.array([1.2, -0.5, 0.3, 0.8])  # beta, pulls of A, B, C; D's is 0


def by_hand(theta: Floats) -> Floats:
    """exp(pull + beta if the letter is the key), each row over its sum."""
    weights = np.exp(np.append(theta[1:], 0.0)) * np.where(np.eye(4) == 1, np.exp(theta[0]), 1.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def test_tables_by_hand() -> None:
    assert models.mixture_table(MIXTURE)[1] == pytest.approx([0.05, 0.5, 0.15, 0.3])
    assert models.choice_table(CHOICE) == pytest.approx(by_hand(CHOICE))
    both = models.choice_table(np.stack([CHOICE, 2 * CHOICE]))  # over an axis before
    assert both == pytest.approx(np.stack([by_hand(CHOICE), by_hand(2 * CHOICE)]))


TABLES = {
    "mixture": (models.fit_mixture, models.mixture_table, MIXTURE),
    "choice": (models.fit_choice, models.choice_table, CHOICE),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_fit_finds_the_parameters_that_made_the_table(name: str) -> None:
    fit, table, theta = TABLES[name]
    counts = 1e6 * KEY[:, None] * table(theta)
    assert fit(counts).theta == pytest.approx(theta, abs=1e-4)
    worse = fit(1e6 * KEY[:, None] * np.full((4, 4), 0.25))
    assert worse.log_likelihood < fit(counts).log_likelihood


@pytest.mark.parametrize("name", TABLES)
def test_an_influence_is_what_one_more_answer_does(name: str) -> None:
    fit, table, theta = TABLES[name]
    counts = 1e5 * KEY[:, None] * table(theta)
    fitted = fit(counts)
    for cell in ((0, 0), (1, 3), (2, 2), (3, 0)):
        more = counts.copy()
        more[cell] += 100
        assert (fit(more).theta - fitted.theta) / 100 == pytest.approx(
            fitted.influence[cell], rel=0.02, abs=1e-9
        )


def test_the_mixture_s_habit_is_the_change_of_its_letters_at_the_mean_knowledge() -> None:
    first, second = MIXTURE, 0.5 * np.array([0.1, 0.2, 0.3, 0.4])  # knows 0.4, then 0.5
    habit = 0.55 * (np.array([0.1, 0.2, 0.3, 0.4]) - MIXTURE / 0.6) @ KEY
    assert models.mixture_habit_effect(first, second, KEY) == pytest.approx(habit)


def test_the_choice_s_habit_is_the_change_of_its_pulls_at_both_knowledges() -> None:
    second = np.array([2.0, 0.9, -0.4, 0.1])

    def right(beta: float, pulls: Floats) -> float:
        return float(np.diag(by_hand(np.append(beta, pulls))) @ KEY)

    changes = [right(beta, second[1:]) - right(beta, CHOICE[1:]) for beta in (1.2, 2.0)]
    assert models.choice_habit_effect(CHOICE, second, KEY) == pytest.approx(sum(changes) / 2)
    moved = np.stack([second, CHOICE])  # over an axis before, as the gradients ask it
    assert models.choice_habit_effect(CHOICE, moved, KEY) == pytest.approx([sum(changes) / 2, 0.0])


def test_many_tables_at_once_are_fitted_as_one_by_one() -> None:
    tables = np.random.default_rng(0).integers(0, 30, (6, 4, 4)).astype(float)
    tables[0] = 0.0  # a subject without answers
    tables[1] = np.diag([30.0, 40.0, 5.0, 1.0])  # all right
    tables[2, :, 1:] = 0.0  # one letter only
    one_by_one = np.array([models.fit_choice(table).theta for table in tables])
    np.testing.assert_allclose(models.fit_choices(tables), one_by_one, atol=1e-3)
