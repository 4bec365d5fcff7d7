"""The gate: which outcomes fail which condition, and that the one word agrees with the headline."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_runs import QUICK, loaded, predictions

from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.headline_comparison import Population
from kmmlu_fast.analysis.strata import IntervalEstimate
from kmmlu_fast.reporting.quality_gate import (
    FailIf,
    GatedComparison,
    gate_line,
    gated_comparisons,
)
from kmmlu_fast.reporting.report_data import collect_report_data, report_data_from_pairs
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.verdict import headline_sentence

BIG = {"Accounting": 900, "Law": 900, "Math": 900}


def _pair(
    first: float, second: float, *, margin: float = 0.01, population: Population = "like", noise: float = 0.0
) -> PairComparison:
    """``noise``: share of answers of either run, each its own, that cannot be read."""
    settings = replace(QUICK, margin=margin, population=population)
    one = loaded("base", predictions(1, skill=first, sizes=BIG, unparsed=noise))
    other = loaded("lora", predictions(2, skill=second, sizes=BIG, unparsed=noise))
    return compare_pair(one, other, settings)


@pytest.mark.parametrize(
    ("pair", "outcome", "words"),
    [
        (_pair(0.5, 1.5), "better", "is better than"),
        (_pair(1.5, 0.5), "worse", "is worse than"),
        (_pair(0.5, 0.5), "equal", "same"),
        (_pair(0.5, 0.5, margin=0.05, noise=0.15), "equal", "equal"),
        (_pair(0.5, 0.5, noise=0.15), "undecided", "No significant difference"),
        (_pair(0.5, 0.52, population="these"), "better", "better"),
    ],
)
def test_one_word_agrees_with_the_headline(pair: PairComparison, outcome: str, words: str) -> None:
    headline = headline_sentence(pair, get_translator("en"))
    assert pair.outcome == outcome, headline
    assert words in headline
    assert pair.undecided == (outcome == "undecided")


def test_a_gain_only_on_leaked_questions_is_undecided() -> None:
    pair = _pair(0.5, 1.5)
    gap = IntervalEstimate(value=0.3, low=0.2, high=0.4)
    leaked = replace(
        pair, overlap_gap=gap, clean=replace(pair.micro, difference=0.0, low=-0.01, high=0.01, p_value=0.9)
    )
    assert pair.outcome == "better" and leaked.only_leaked and leaked.outcome == "undecided"


@pytest.mark.parametrize(
    ("condition", "failing"),
    [
        ("worse", {"worse", "opposed", "not compared"}),
        ("undecided", {"worse", "opposed", "not compared", "undecided"}),
        ("not-better", {"worse", "opposed", "not compared", "undecided", "equal"}),
    ],
)
def test_conditions(condition: FailIf, failing: set[str]) -> None:
    for outcome in ("better", "worse", "opposed", "equal", "undecided", "not compared"):
        gated = GatedComparison(name="a against b", outcome=outcome, sentence="")
        assert gated.fails(condition) == (outcome in failing)
        line = gate_line([gated], condition)
        assert ("failed (a against b: " + outcome in line) == (outcome in failing)


def test_recipes_and_refused_runs_are_gated() -> None:
    base = loaded("base", predictions(1, skill=0.5))
    seeds = [loaded(f"s{seed}", predictions(seed, skill=1.5, unparsed=0.02)) for seed in (1, 2, 3)]
    other = loaded("other", predictions(1, sizes={"Law": 30}))
    t = get_translator("en")
    data = collect_report_data([base, seeds[0], other], QUICK, groups={"lora": seeds}, strictly=True)
    outcomes = {each.name: each.outcome for each in gated_comparisons(data, t)}
    assert outcomes == {
        "s1 against base": "better",
        "lora against base": "better",
        "other against base": "not compared",
    }
    assert "failed (other against base: not compared)" in gate_line(gated_comparisons(data, t), "worse")


def test_other_exams_are_gated_too() -> None:
    runs = []
    for exam, skill in (("kmmlu", 1.5), ("click", 0.1)):
        for name, level in (("base", 0.8), ("lora", skill)):
            run = loaded(f"{name}-{exam}", predictions(1, skill=level, sizes=BIG))
            runs.append(
                replace(
                    run,
                    config={
                        "exam": {"name": exam, "title": exam},
                        "adapter": None if name == "base" else {"name": name},
                    },
                )
            )
    data = collect_report_data(runs, QUICK)
    outcomes = [each.outcome for each in gated_comparisons(data, get_translator("en"))]
    assert outcomes == ["better", "worse"], outcomes


def test_an_identical_run_of_few_questions_is_not_shown_equal() -> None:
    """That all of 20 answers agree does not show that answers to questions like these do."""
    run = loaded("base", predictions(1, sizes={"Law": 20}))
    pair = compare_pair(run, replace(run, name="lora"), QUICK)
    assert report_data_from_pairs([run], QUICK, [pair]).pairs[0].outcome == "undecided"
