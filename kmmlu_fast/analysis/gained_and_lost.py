"""Which features the changed questions have: among the questions that only one of two runs has right, which
kinds were gained more often than lost.

In: the joined questions of two runs (first, second: right or wrong), the dataset's texts, ids that overlap
training data. Out: one odds ratio per feature, all from one logistic model, so that long questions with
formulas are not counted twice. Knows nothing of runs or words.

Features: long (twice as many characters), negation ("which is NOT ..."), formula, figure, number_middle (all
options are numbers and the right one is neither the smallest nor the largest), all_of_the_above (options
that name other options), overlap (with training data). An odds ratio above 1: the ratio of gained to lost is
higher for such questions than for others. p is corrected (Holm) for the number of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from kmmlu_fast.analysis.error_profile import with_question_features
from kmmlu_fast.analysis.latest import keep_latest
from kmmlu_fast.analysis.paired import ALPHA, adjust_p_values
from kmmlu_fast.analysis.strata import Floats
from kmmlu_fast.core.letters import REFERENCE_HINT, names_other_options
from kmmlu_fast.core.schema import OPTION_LETTERS

MIN_CHANGED = 200
# of gained and of lost questions, with and without the feature; with fewer, the model may not converge
MIN_CELL = 10
FEATURES = ("long", "negation", "formula", "figure", "number_middle", "all_of_the_above", "overlap")
_MOST_STEPS, _CONVERGED, _WORST_CONDITION = 50, 1e-8, 1e12
_NUMBER = r"^\s*([-+]?\d[\d,]*\.?\d*)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureOdds:
    """One feature. ``questions``: the changed ones that have it (for ``long``, all)."""

    feature: str
    questions: int
    odds_ratio: float
    low: float
    high: float
    p_holm: float

    @property
    def significant(self) -> bool:
        return self.p_holm < ALPHA and not self.low <= 1.0 <= self.high


@dataclass(frozen=True, slots=True)
class GainedAndLost:
    """``gained``: questions with known texts that only the second run has right; ``lost``: only the first."""

    gained: int
    lost: int
    kinds: tuple[FeatureOdds, ...]


def compare_gained_and_lost(
    joined: pl.DataFrame, questions: pl.DataFrame, overlap: frozenset[str] = frozenset()
) -> GainedAndLost | None:
    """The logistic model of gained against lost; None if too few questions changed."""
    changed = joined.filter(pl.col("first") != pl.col("second")).select("question_id", "second")
    known = find_question_features(questions).join(changed, on="question_id", maintain_order="left")
    frame = with_relative_features(known, overlap)
    gained = frame["second"].to_numpy().astype(float)
    if len(frame) < MIN_CHANGED or not MIN_CELL <= gained.sum() <= len(frame) - MIN_CELL:
        return None
    columns = {}
    for name in FEATURES:
        values = frame[name].to_numpy().astype(float)
        cells = [((values > 0) == has)[gained == side].sum() for has in (True, False) for side in (0, 1)]
        if name == "long" or min(cells) >= MIN_CELL:
            columns[name] = values
    return GainedAndLost(int(gained.sum()), int((1 - gained).sum()), _fit_feature_odds(columns, gained))


@keep_latest
def find_question_features(questions: pl.DataFrame) -> pl.DataFrame:
    """question_id, chars, and the features that do not depend on which questions changed."""
    letters = [letter for letter in OPTION_LETTERS if letter in questions.columns]
    numbers = {
        letter: pl.col(letter).str.extract(_NUMBER).str.replace_all(",", "").cast(pl.Float64, strict=False)
        for letter in letters
    }
    smallest, largest = pl.min_horizontal(*numbers.values()), pl.max_horizontal(*numbers.values())
    right = pl.coalesce([pl.when(pl.col("answer") == letter).then(numbers[letter]) for letter in letters])
    middle = (right > smallest) & (right < largest)
    known = pl.all_horizontal(
        [numbers[letter].is_not_null() | pl.col(letter).is_null() for letter in letters]
    )
    hinted = questions.select(
        pl.any_horizontal(pl.col(letters).str.contains(REFERENCE_HINT)).fill_null(False)
    )
    refers_to_options = [
        hint and names_other_options([option for option in options if option is not None])
        for hint, options in zip(hinted.to_series(), questions.select(letters).iter_rows(), strict=True)
    ]
    return (
        with_question_features(questions)
        .with_columns(
            (known & middle).fill_null(False).alias("number_middle"),
            pl.Series("all_of_the_above", refers_to_options, dtype=pl.Boolean),
        )
        .select("question_id", "chars", "negation", "formula", "figure", "number_middle", "all_of_the_above")
        .collect()
    )


def with_relative_features(features: pl.DataFrame, overlap: frozenset[str]) -> pl.DataFrame:
    """With the features that depend on the other questions, and on the overlap."""
    return features.with_columns(
        (pl.col("chars") / pl.col("chars").median()).log(2).alias("long"),
        pl.col("question_id").is_in(overlap).alias("overlap"),
    )


def _fit_feature_odds(columns: dict[str, np.ndarray], gained: np.ndarray) -> tuple[FeatureOdds, ...]:
    from scipy.special import ndtr, ndtri

    design = np.column_stack([np.ones(len(gained)), *columns.values()])
    fit = fit_logistic_model(design, gained)
    if fit is None:
        return ()
    coefficients, errors = (values[1:] for values in fit)
    half = ndtri(1 - ALPHA / 2) * errors
    holm = adjust_p_values(2 * ndtr(-np.abs(coefficients / errors)), "holm")
    return tuple(
        FeatureOdds(
            feature=name,
            questions=len(gained) if name == "long" else int((columns[name] > 0).sum()),
            odds_ratio=float(np.exp(b)),
            low=float(np.exp(b - h)),
            high=float(np.exp(b + h)),
            p_holm=float(p),
        )
        for name, b, h, p in zip(columns, coefficients, half, holm, strict=True)
    )


def fit_logistic_model(design: Floats, outcome: Floats) -> tuple[Floats, Floats] | None:
    """Coefficients and standard errors by Newton's method; None if it does not converge or a column is
    determined by others.

    Equal to statsmodels' Logit, which takes a second to import and 30 times as long to fit.
    """
    from scipy.special import expit

    coefficients = np.zeros(design.shape[1])
    for _ in range(_MOST_STEPS):
        expected = expit(design @ coefficients)
        information = (design * (expected * (1.0 - expected))[:, None]).T @ design
        if np.linalg.cond(information) > _WORST_CONDITION:
            return None
        step = np.linalg.solve(information, design.T @ (outcome - expected))
        coefficients = coefficients + step
        if np.abs(step).max() < _CONVERGED:
            return coefficients, np.sqrt(np.diag(np.linalg.inv(information)))
    return None
