"""What is said about the written form of the letters: the right cause by name, in both languages."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_forms import form_pair_runs, form_run
from made_runs import loaded, predictions

from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.strata import IntervalEstimate
from kmmlu_fast.analysis.written_forms import FormSplit, summarise_letter_forms
from kmmlu_fast.reporting.terminal.tables import forms_table
from kmmlu_fast.reporting.wording.form_text import (
    classify_letter_form,
    form_table_rows,
    habit_pair,
    low_mass_line,
)
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.letter_habit import classify_letter_prior
from kmmlu_fast.reporting.wording.verdict import verdict_lines, word_verdict

EN, KO = get_translator("en", "report"), get_translator("ko", "report")


def pair_of(**world: object) -> PairComparison:
    first, second = form_pair_runs(1_800, **world)  # type: ignore[arg-type]
    return compare_pair(first, second, ComparisonSettings())


def test_a_gain_that_is_form_alone_is_called_form() -> None:
    pair = pair_of(learns=True, blurred=True)
    assert pair.significant and classify_letter_form(pair) == "all_form"
    verdict = word_verdict(pair, EN)
    assert verdict.sentences[0].startswith("The change is one of written form")
    assert "3.0 % of the probability in base, 83.0 % in lora" in verdict.sentences[0]
    assert "3.0 %" in verdict.cautions[0]  # below half
    assert not any("Letter habit" in line for line in verdict.lines)
    assert "글자를 쓰는 형식의 변화입니다" in word_verdict(pair, KO).sentences[0]


def test_knowledge_is_not_called_form_though_the_form_moved() -> None:
    pair = pair_of(learns=True, blurred=False, strength=(0.8, 1.3))
    assert classify_letter_form(pair) == "not_form"
    spoken_of = habit_pair(pair)
    assert spoken_of is not None and spoken_of.micro is pair.forms.either
    assert classify_letter_prior(spoken_of) == "not_prior"
    lines = verdict_lines(pair, EN)
    assert any(line.startswith('If " A" and "A" both count: ') and "Letter habit" in line for line in lines)


def test_form_and_knowledge_are_both_named() -> None:
    pair = pair_of(learns=True, blurred=True, strength=(0.8, 1.3))
    assert classify_letter_form(pair) == "partly_form"
    assert word_verdict(pair, EN).sentences[0].startswith("A part of the change is written form")


def test_letter_habit_is_told_from_form() -> None:
    pair = pair_of(learns=True, blurred=False, pull=(1.2, -0.6))
    spoken_of = habit_pair(pair)
    assert classify_letter_form(pair) == "not_form" and spoken_of is not None
    assert classify_letter_prior(spoken_of) == "all_prior"


def test_without_a_moved_form_everything_is_as_before() -> None:
    pair = pair_of(learns=False, blurred=False, strength=(0.8, 1.3))
    assert classify_letter_form(pair) is None and habit_pair(pair) is pair


def made(
    pair: PairComparison, form: tuple[float, float, float], either: tuple[float, float, float]
) -> PairComparison:
    value, low, high = either
    change = replace(pair.micro, difference=value, low=low, high=high, p_value=None)
    split = FormSplit(
        scored=("lm-eval", "lm-eval"),
        mass=(0.03, 0.9),
        form=IntervalEstimate(*form),
        p_value=0.001,
        either=change,
    )
    return replace(pair, forms=split)


@pytest.mark.parametrize(
    ("form", "either", "expected"),
    [
        ((0.05, 0.03, 0.07), (0.01, -0.01, 0.03), "all_form"),
        ((0.05, 0.03, 0.07), (0.02, 0.01, 0.03), "partly_form"),
        ((0.09, 0.07, 0.11), (-0.03, -0.05, -0.01), "reversed_form"),
        ((0.001, 0.0005, 0.002), (0.06, 0.04, 0.08), "not_form"),
        ((0.05, -0.01, 0.11), (0.01, -0.01, 0.03), "form_unknown"),
        ((-0.05, -0.07, -0.03), (0.01, -0.01, 0.03), "form_unknown"),
    ],
)
def test_every_meaning_has_its_sentence(
    form: tuple[float, float, float], either: tuple[float, float, float], expected: str
) -> None:
    pair = made(pair_of(learns=True, blurred=True), form, either)
    assert classify_letter_form(pair) == expected
    for t in (EN, KO):
        text = "\n".join(verdict_lines(pair, t))
        assert "{" not in text and (" form" in text or "형식" in text)


def test_hidden_form_is_said_where_nothing_shows() -> None:
    pair = made(pair_of(learns=True, blurred=True), (0.05, 0.03, 0.07), (-0.05, -0.07, -0.03))
    still = replace(pair, micro=replace(pair.micro, difference=0.0, low=-0.01, high=0.01, p_value=1.0))
    assert classify_letter_form(still) == "hidden_form"
    assert "hides a loss" in "\n".join(verdict_lines(still, EN))


def test_a_change_in_the_scored_form_alone_is_said_where_no_form_moved() -> None:
    pair = made(pair_of(learns=True, blurred=True), (0.05, 0.03, 0.07), (0.01, -0.01, 0.03))
    assert pair.forms is not None
    still = replace(pair, forms=replace(pair.forms, mass=(0.03, 0.04)))
    assert classify_letter_form(still) == "scored_only" and habit_pair(still) is still
    assert "shows in the scored form of the letters only" in "\n".join(verdict_lines(still, EN))


def test_older_runs_read_as_mass_unknown() -> None:
    first, _ = form_pair_runs(90, learns=True, blurred=False)
    rows = form_table_rows([first, loaded("old", predictions(1))], EN)
    assert rows[0][:4] == ["base", '" A"', "3.0", "83.0"] and rows[1][:2] == ["old", "mass unknown"]
    assert form_table_rows([loaded("old", predictions(1))], EN) == []
    assert forms_table([loaded("old", predictions(1))], EN) is None
    table = forms_table([first], KO)
    assert table is not None and len(table.columns) == len(rows[0])


def test_a_low_mass_is_said_with_what_the_other_forms_give() -> None:
    first, second = form_pair_runs(90, learns=True, blurred=False)
    line = low_mass_line(summarise_letter_forms(first.frame), EN)
    assert line is not None and "3.0 %" in line and '"A" 83.0 %' in line and "either 86.0 %" in line
    assert low_mass_line(summarise_letter_forms(second.frame), EN) is None
    assert low_mass_line(None, EN) is None
    both = form_run("a", ["A"], [[0.1, 0.0, 0.0, 0.0]], [[0.2, 0.1, 0.0, 0.0]], "either")
    assert "(둘 다)" in (low_mass_line(summarise_letter_forms(both.frame), KO) or "")
