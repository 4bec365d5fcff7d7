"""The headline by itself: the numbers of the whole comparison, whatever the runs' order and questions."""

from dataclasses import fields, replace

import polars as pl
import pytest
from made_runs import QUICK, SIZES, loaded, predictions

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.headline_comparison import (
    ComparisonSettings,
    HeadlineComparison,
    compare_headline,
    swap_headline,
)
from kmmlu_fast.core.errors import RunError

BASE = loaded("base", predictions(1, skill=0.5, unparsed=0.1))
LORA = loaded("lora", predictions(2, skill=1.2, unparsed=0.1), quantization="fp8")
IDS = BASE.frame["question_id"]
FULL_SIZES = {name: 10 * size if name == "Law" else size for name, size in SIZES.items()}


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        ComparisonSettings(sizes=FULL_SIZES),
        ComparisonSettings(sizes=FULL_SIZES, population="these"),
        ComparisonSettings(overlap=frozenset(IDS[::3])),
        ComparisonSettings(overlap=frozenset(IDS), sizes=FULL_SIZES),
        ComparisonSettings(overlap=frozenset(["Law/test/99999"])),
    ],
)
def test_it_holds_the_numbers_of_the_whole_comparison(settings: ComparisonSettings) -> None:
    whole, headline = compare_pair(BASE, LORA, settings), compare_headline(BASE, LORA, settings)
    for field in fields(HeadlineComparison):
        assert getattr(headline, field.name) == getattr(whole, field.name), field.name
    assert headline.outcome == whole.outcome


def test_the_order_of_the_questions_changes_nothing() -> None:
    shuffled = replace(LORA, predictions=LORA.frame.sample(fraction=1.0, shuffle=True, seed=3))
    assert compare_headline(BASE, shuffled, QUICK) == compare_headline(BASE, LORA, QUICK)


def test_questions_of_one_run_are_refused_or_left_out() -> None:
    fewer = replace(LORA, predictions=LORA.frame.filter(pl.col("row") > 3))
    with pytest.raises(RunError, match="only in the first"):
        compare_headline(BASE, fewer, QUICK)
    common = compare_headline(BASE, fewer, replace(QUICK, intersection=True))
    assert common.dropped == (16, 0, 0) and common.micro.n == len(IDS) - 16


def test_a_conflicting_key_is_left_out_although_the_questions_are_the_same() -> None:
    other = pl.when(pl.col("question_id") == IDS[0]).then(pl.lit("D")).otherwise(pl.lit("C")).alias("answer")
    key = BASE.frame.with_columns(pl.lit("C").alias("answer"))
    one, second = replace(BASE, predictions=key), replace(LORA, predictions=key.with_columns(other))
    found = compare_headline(one, second, replace(QUICK, intersection=True))
    assert found.dropped == (0, 0, 1) and found.micro.n == len(IDS) - 1


def test_a_swapped_headline_is_that_of_the_swapped_runs() -> None:
    settings = replace(QUICK, different_prompts=True)
    base = replace(BASE, facts={"quantization": "None", "prompt_style": "chat"})
    lora = replace(LORA, facts={"quantization": "fp8", "prompt_style": "lm-eval"})
    swapped, again = (
        swap_headline(compare_headline(base, lora, settings)),
        compare_headline(lora, base, settings),
    )
    assert swapped.prompt_differences and swapped.setting_differences
    for field in fields(HeadlineComparison):
        if field.name not in ("micro", "macro"):
            assert getattr(swapped, field.name) == getattr(again, field.name), field.name
    for name in ("first", "second", "difference", "low", "high", "p_value", "inner_low", "inner_high", "b"):
        assert getattr(swapped.micro, name) == pytest.approx(getattr(again.micro, name))
