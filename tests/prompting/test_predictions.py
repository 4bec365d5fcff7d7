"""The mass on a question's letters, in whichever written forms were read."""

from __future__ import annotations

import math

import pytest

from kmmlu_fast.core.schema import Prediction, Question
from kmmlu_fast.prompting.predictions import make_prediction, prediction_letter_mass

QUESTION = Question(
    question_id="q",
    subject="s",
    supercategory="c",
    split="train",
    row=0,
    question="?",
    options=("가", "나", "다", "라"),
    answer="A",
)


def logs(*probabilities: float) -> list[float]:
    return [math.log(value) for value in probabilities]


def predict(**forms: list[float]) -> Prediction:
    names = {"spaced": "lm-eval", "bare": "bare"}
    return make_prediction(QUESTION, "A", "x", [1], forms={names[name]: forms[name] for name in forms})


def test_both_written_forms_are_added() -> None:
    prediction = predict(spaced=logs(0.1, 0.1, 0.05, 0.05), bare=logs(0.2, 0.1, 0.1, 0.05))
    assert prediction_letter_mass(prediction) == pytest.approx(0.75)


def test_a_tokenizer_with_one_form_gives_that_forms_mass() -> None:
    assert prediction_letter_mass(predict(bare=logs(0.2, 0.1, 0.1, 0.05))) == pytest.approx(0.45)


def test_letters_of_several_tokens_have_no_known_mass() -> None:
    assert prediction_letter_mass(predict()) is None


def test_rounding_does_not_exceed_one_and_nan_is_not_one() -> None:
    assert prediction_letter_mass(predict(spaced=logs(0.6, 0.2, 0.1, 0.1), bare=logs(*[1e-9] * 4))) == 1.0
    assert prediction_letter_mass(predict(spaced=[math.nan] * 4)) is None


def test_letters_without_any_probability_hold_nothing() -> None:
    assert prediction_letter_mass(predict(spaced=[-math.inf] * 4)) == 0.0
