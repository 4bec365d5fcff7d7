"""Mass and accuracy by written form, and the part of a difference that is form, by hand-computed numbers."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from made_forms import form_pair_runs, form_run

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.written_forms import summarise_letter_forms
from kmmlu_fast.core.errors import RunError

SPACED = [[0.02, 0.01, 0.0, 0.0], [0.03, 0.01, 0.0, 0.0]]
BARE = [[0.1, 0.6, 0.1, 0.0], [0.5, 0.1, 0.1, 0.1]]


def test_mass_and_accuracy_of_each_form_by_hand() -> None:
    summary = summarise_letter_forms(form_run("a", ["B", "A"], SPACED, BARE).frame)
    assert summary is not None and summary.scored == "lm-eval" and summary.is_low
    assert summary.spaced.mass == pytest.approx(0.035) and summary.spaced.accuracy == 0.5
    assert summary.bare.mass == pytest.approx(0.8) and summary.bare.accuracy == 1.0
    assert summary.either.mass == pytest.approx(0.835) and summary.either.accuracy == 1.0
    assert summary.differing == 0.5 and summary.questions == 2
    document = summary.to_dict()
    assert document["scored_mass"] == pytest.approx(0.035) and document["bare"]["accuracy"] == 1.0


@pytest.mark.parametrize("scored", ["bare", "either"])
def test_the_scored_form_is_told_by_the_numbers(scored: str) -> None:
    summary = summarise_letter_forms(form_run("a", ["B", "A"], SPACED, BARE, scored).frame)
    assert summary is not None and summary.scored == scored and not summary.is_low


def test_older_answers_have_no_known_mass() -> None:
    frame = form_run("a", ["B", "A"], SPACED, BARE).frame
    lists = [pl.lit(None, pl.List(pl.Float64)).alias(f"{name}_logprobs") for name in ("spaced", "bare")]
    assert summarise_letter_forms(frame.with_columns(lists)) is None
    assert summarise_letter_forms(frame.head(0)) is None
    only_one = summarise_letter_forms(
        frame.with_columns(lists[0], pl.lit(None, pl.Float64).alias("spaced_mass"))
    )
    assert only_one is None or only_one.spaced is None  # a form that is not one token per letter


def test_questions_with_other_numbers_of_options() -> None:
    run = form_run("a", ["B", "A"], [[0.2, 0.3], [0.2, 0.1]], [[0.1, 0.1], [0.1, 0.4]])
    summary = summarise_letter_forms(run.frame)
    assert summary is not None and summary.either.accuracy == 0.5 and summary.bare.accuracy == 0.0


def test_the_parts_sum_to_the_difference() -> None:
    first, second = form_pair_runs(900, learns=True, blurred=True)
    pair = compare_pair(first, second, ComparisonSettings())
    forms = pair.forms
    assert forms is not None and forms.letters is not None
    assert forms.form.value + forms.either.difference == pytest.approx(pair.micro.difference)
    assert forms.mass == pytest.approx((0.03, 0.83)) and forms.moved and forms.significant
    assert forms.form.value > 0.1 and not forms.either.significant
    again = compare_pair(second, first, ComparisonSettings()).forms
    assert again is not None and again.form.value == pytest.approx(-forms.form.value)


def test_four_questions_are_no_finding_whatever_the_interval_says() -> None:
    key = ["A"] * 225
    right, wrong = [0.02, 0.01, 0.0, 0.0], [0.01, 0.02, 0.0, 0.0]
    bare = [[0.5, 0.1, 0.1, 0.1]] * 225
    first = form_run("a", key, [wrong] * 4 + [right] * 221, bare)
    second = form_run("b", key, [right] * 225, bare)
    forms = compare_pair(first, second, ComparisonSettings()).forms
    assert forms is not None and forms.p_value == pytest.approx(0.0625)  # mid-p of 4 to 0
    assert not forms.significant and not forms.moved


def test_a_run_without_forms_leaves_the_form_unknown() -> None:
    first, second = form_pair_runs(90, learns=True, blurred=True)
    frame = second.frame.with_columns(
        pl.lit(None, pl.List(pl.Float64)).alias("spaced_logprobs"),
        pl.lit(None, pl.Float64).alias("spaced_mass"),
    )
    old = form_run("old", ["A"], [SPACED[0]], [BARE[0]])
    from dataclasses import replace

    assert (
        compare_pair(first, replace(old, predictions=frame, scores=second.scores), ComparisonSettings()).forms
        is None
    )


def test_two_scored_forms_are_two_protocols() -> None:
    one = form_run("a", ["B", "A"] * 30, SPACED * 30, BARE * 30)
    other = form_run("b", ["B", "A"] * 30, SPACED * 30, BARE * 30, "bare", decoding={"letter_form": "bare"})
    with pytest.raises(RunError, match="letter_form lm-eval -> bare"):
        compare_pair(one, other, ComparisonSettings())
    pair = compare_pair(one, other, ComparisonSettings(different_prompts=True))
    assert pair.forms is not None and pair.forms.moved and pair.forms.scored == ("lm-eval", "bare")
    # the same model: all of the difference is form
    assert pair.forms.form.value == pytest.approx(pair.micro.difference) == 0.5
    assert math.isclose(pair.forms.either.difference, 0.0) and not np.isnan(pair.forms.p_value)
