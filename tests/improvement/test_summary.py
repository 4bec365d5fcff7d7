"""What a search says: ingredients only with enough recipes, the shrunk gain, the verdict of every adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_searches import EFFECT, grid, make_config, make_result, right

from kmmlu_fast.analysis.exact_band import ChangeInterval
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.search import SearchResult
from kmmlu_fast.improvement.summary import (
    ingredient_lines,
    name_yardstick,
    recipe_rows,
    selection_gain,
    shrunk_selection_gain,
    summary_lines,
    verdict_sentences,
)


def test_ingredients_are_told_apart_with_enough_recipes() -> None:
    recipes = grid([10, 20], [4, 8, 16, 32, 64, 128])
    counts = [
        400 + (20 if recipe.settings["size"] == 20 else 0) + (place % 3)
        for place, recipe in enumerate(recipes)
    ]
    too_few = "\n".join(ingredient_lines(make_result(recipes, counts)))
    assert "too few recipes (12, for 6 changed values)" in too_few
    recipes = grid([10, 20], [4, 8]) + [
        Recipe(f"again{n}", {"size": 10 + 10 * (n % 2), "r": 4}) for n in range(8)
    ]
    counts = [400 + (20 if recipe.settings["size"] == 20 else 0) for recipe in recipes]
    lines = "\n".join(ingredient_lines(make_result(recipes, counts)))
    assert "size 20: +2.0 pp +- 0.0" in lines and "r 8: +0.0 pp" in lines.replace("-0.0", "+0.0")


def test_settings_that_vary_together_are_not_told_apart() -> None:
    recipes = [Recipe(f"r{n}", {"size": 10 * (n % 2), "r": 4 + n % 2}) for n in range(12)]
    assert "vary together" in ingredient_lines(make_result(recipes, list(range(400, 412))))[0]


def test_the_gain_of_the_best_is_shrunk() -> None:
    result = make_result(grid([10, 20], [4, 8]), [400, 402, 398, 412])
    assert 0 <= shrunk_selection_gain(result) < 0.012
    assert recipe_rows(result)[0].name == "n20-r8"


@pytest.mark.parametrize(
    ("rival", "words"),
    [
        (ChangeInterval(0.02, 0.01, 0.03), "It beats the base with 5 examples in"),
        (ChangeInterval(-0.02, -0.03, -0.01), "It is worse than the base with 5 examples in"),
        (
            ChangeInterval(0.0, -0.01, 0.01),
            "It is not shown to differ from the base with 5 examples in",
        ),
    ],
)
def test_the_rival_is_named_as_it_came_out(rival: ChangeInterval, words: str) -> None:
    result = make_result(grid([10, 20], [4, 8]), [400, 402, 398, 412], rival)
    sentences = " ".join(verdict_sentences(result))
    assert words in sentences and "+2.0 pp (+1.0 to +3.0)" in sentences and "better" in sentences


def test_the_interval_beside_a_gain_is_about_that_gain() -> None:
    """Of several seeds it is the recipe's, not the first seed's."""
    base, first, second = right(400), right(440), right(404)
    alone, _ = selection_gain(base, [first])
    assert (round(alone.value, 6), alone.excludes_zero) == (0.04, True)
    both, error = selection_gain(base, [first, second])
    assert both.value == pytest.approx(0.022) and not both.excludes_zero  # seeds differ by more than that
    assert both.value - both.low == pytest.approx(both.high - both.value) and error > 0.0
    same, _ = selection_gain(base, [base, base])
    assert same.low < 0 < same.high  # no difference at all is no proof


def test_a_tie_and_the_verdicts_of_both_seeds_are_told() -> None:
    recipes = grid([10, 20], [4, 8])
    result = make_result(recipes, [412, 402, 398, 412])
    rows = recipe_rows(result)
    assert rows[0].fate == "winner" and rows[1].fate == "last rung, as good as the winner on these questions"
    found = replace(
        result.confirmation,
        gains={**result.confirmation.gains, "best-s1": ChangeInterval(0.01, -0.01, 0.03)},
        questions_by_adapter={"best-s0": 500, "best-s1": 500},
        base_by_adapter={"best-s0": 0.4, "best-s1": 0.4},
        verdicts={"best-s0": "better", "best-s1": "undecided"},
    )
    first, second, *_ = verdict_sentences(replace(result, confirmation=found))
    assert first.endswith("It is shown to be better.")
    assert second == (
        "Its adapter of another seed, best-s1, on 500 test questions: +1.0 pp (-1.0 to +3.0) against the"
        " base's 40.0%. It is not shown to be better or worse."
    )
    alone = replace(found, verdicts={}, gains={"best-s0": ChangeInterval(0.02, -0.01, 0.05)})
    assert verdict_sentences(replace(result, confirmation=alone))[0].endswith(
        "not shown to be better or worse."
    )


def two_seeds(result: SearchResult) -> SearchResult:
    """The first adapter was decided after 225 questions, the second one not after 1,500."""
    found = replace(
        result.confirmation,
        questions=225,
        base=0.41,
        gains={"best-s0": ChangeInterval(0.03, 0.01, 0.05), "best-s1": ChangeInterval(0.01, -0.01, 0.03)},
        questions_by_adapter={"best-s0": 225, "best-s1": 1500},
        base_by_adapter={"best-s0": 0.41, "best-s1": 0.4},
        verdicts={"best-s0": "better", "best-s1": "undecided"},
        effect=EFFECT,
    )
    return replace(result, confirmation=found)


def test_the_recipe_leads_and_each_adapter_follows_with_its_own_questions() -> None:
    rival = ChangeInterval(0.02, 0.01, 0.03)
    result = two_seeds(make_result(grid([10, 20], [4, 8]), [400, 402, 398, 412], rival))
    assert verdict_sentences(result) == [
        "n20-r8 over 2 seeds, on 225 test questions: +2.0 pp (-1.0 to +5.0) against the base's 41.0%. The"
        " interval covers another training seed on the same rows.",
        "Its adapter best-s0, on 225 test questions: +3.0 pp (+1.0 to +5.0) against the base's 41.0%. It is"
        " shown to be better.",
        "Its adapter of another seed, best-s1, on 1,500 test questions: +1.0 pp (-1.0 to +3.0) against the"
        " base's 40.0%. It is not shown to be better or worse.",
        *[said for said in verdict_sentences(result) if said.startswith("On the selection questions ")],
        "Its adapter best-s0 beats the base with 5 examples in the prompt (45.0%): +2.0 pp (+1.0 to +3.0).",
    ]


def test_an_adapter_that_agrees_on_as_many_questions_is_not_repeated() -> None:
    result = two_seeds(make_result(grid([10, 20], [4, 8]), [400, 402, 398, 412]))
    same = dict.fromkeys(("best-s0", "best-s1"), 225)
    agreed = replace(
        result.confirmation, questions_by_adapter=same, verdicts=dict.fromkeys(same, "undecided")
    )
    said = " ".join(verdict_sentences(replace(result, confirmation=agreed)))
    assert "best-s1" not in said and "It is not shown to be better or worse." in said


def selection_sentences(result: SearchResult) -> list[str]:
    return [said for said in verdict_sentences(result) if said.startswith("On the selection questions ")]


def test_the_best_of_how_many_is_what_it_was_chosen_from() -> None:
    """Not recipes of an earlier rung, nor one that was not scored, nor one that answers with one letter."""
    recipes = grid([10, 20], [4, 8])
    result = make_result(recipes, [400, 402, 398, 412])
    (said,) = selection_sentences(result)
    assert said.startswith("On the selection questions n20-r8 gained +1.2 pp; ")
    assert said.endswith(" pp without the luck of being the best of 4.")
    scores = result.rungs[0]
    fewer = replace(scores, recipes={name: scores.recipes[name] for name in list(scores.recipes)[1:]})
    (said,) = selection_sentences(replace(result, rungs=[fewer]))  # --minutes left one out
    assert said.endswith("the best of 3.")
    lucky = replace(scores, recipes={**scores.recipes, "n10-r4": [right(700)]})
    last = replace(fewer, rung=1)
    two_rungs = replace(result, rungs=[lucky, last])
    (said,) = selection_sentences(two_rungs)
    assert said.endswith("the best of 3 in the last rung.")
    only_last = replace(result, rungs=[last])
    assert shrunk_selection_gain(two_rungs) == shrunk_selection_gain(only_last)  # gains of one rung
    fallen = replace(lucky, collapsed={"n10-r4": "answers D to 100% of the questions"})
    collapsed = replace(result, rungs=[fallen])
    (said,) = selection_sentences(collapsed)
    assert said.endswith("the best of 3.")
    assert shrunk_selection_gain(collapsed) == shrunk_selection_gain(replace(result, rungs=[fewer]))


def test_nothing_is_shrunk_where_the_winner_is_one_of_two_or_not_the_best() -> None:
    result = make_result(grid([10, 20], [4, 8]), [400, 402, 398, 412])
    scores = result.rungs[0]
    two = replace(scores, rung=1, recipes={name: scores.recipes[name] for name in ("n10-r8", "n20-r8")})
    assert selection_sentences(replace(result, rungs=[scores, two])) == []
    assert shrunk_selection_gain(replace(result, winner=result.recipes[0])) is None


def test_the_base_that_gains_are_measured_against_is_named(tmp_path: Path) -> None:
    """A few-shot winner is asked with examples, and measured against the base without."""
    plain, shots = Recipe("plain", {}), Recipe("shots", {"num_fewshot": 5})
    recipes = [plain, shots, Recipe("other", {"r": 4})]
    result = make_result(recipes, [400, 420, 402])
    both = {("lm-eval", 5): right(410), ("lm-eval", 0): right(400)}
    few_shot = replace(result, rungs=[replace(result.rungs[0], base=both)])
    assert name_yardstick(few_shot) == "the base without examples in the prompt"
    (said,) = selection_sentences(few_shot)
    assert "gained +2.0 pp against the base without examples in the prompt; " in said
    config = make_config(tmp_path, Path("sample"))
    line = "Gains on selection are against the base without examples in the prompt, for every recipe."
    assert line in summary_lines(config, few_shot) and line not in summary_lines(config, result)
    styles = {("qa", 5): right(410), ("lm-eval", 5): right(400)}
    mixed = replace(result, rungs=[replace(result.rungs[0], base=styles)])
    assert name_yardstick(mixed) == "the base (qa) with 5 examples in the prompt"
