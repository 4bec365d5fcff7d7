"""The logistic model behind the kinds of question that were gained or lost."""

import numpy as np
import pytest

from kmmlu_fast.analysis.gained_and_lost import fit_logistic_model


def made(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    design = np.column_stack([np.ones(rows), random.normal(0, 1, rows), random.random((rows, 3)) < 0.1])
    chance = 1 / (1 + np.exp(-(design @ np.array([0.3, 0.8, -1.5, 0.0, 2.0]))))
    return design, (random.random(rows) < chance).astype(float)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_equals_statsmodels(seed: int) -> None:
    from statsmodels.discrete.discrete_model import Logit

    design, outcome = made(600, seed)
    found = fit_logistic_model(design, outcome)
    assert found is not None
    expected = Logit(outcome, design).fit(disp=0, method="newton", maxiter=50)
    assert found[0] == pytest.approx(expected.params, abs=1e-7)
    assert found[1] == pytest.approx(expected.bse, abs=1e-7)


def test_what_cannot_be_estimated_gives_nothing() -> None:
    design, outcome = made(200, 4)
    assert fit_logistic_model(np.column_stack([design, design[:, 1]]), outcome) is None
    separated = np.column_stack([np.ones(200), np.linspace(-1, 1, 200)])
    assert fit_logistic_model(separated, (separated[:, 1] > 0).astype(float)) is None
