"""What a search says: ingredients only with enough recipes, the shrunk gain, the command for the winner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_searches import grid, make_result, right

from kmmlu_fast.analysis.exact_band import ChangeInterval
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.summary import (
    ingredient_lines,
    recipe_rows,
    reproduce_lines,
    selection_gain,
    shrunk_selection_gain,
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
        verdicts={"best-s0": "better", "best-s1": "undecided"},
    )
    first, second, *_ = verdict_sentences(replace(result, confirmation=found))
    assert first.endswith("It is shown to be better.")
    assert second == "Its adapter of another seed, best-s1, is not shown to be better or worse: +1.0 pp."
    alone = replace(found, verdicts={}, gains={"best-s0": ChangeInterval(0.02, -0.01, 0.05)})
    assert verdict_sentences(replace(result, confirmation=alone))[0].endswith(
        "not shown to be better or worse."
    )


def test_the_command_names_every_setting_of_the_winner(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("recipes: []")
    config = build_config(ImproveConfig, recipes=tmp_path / "r.yaml", model="demo", dataset="sample")
    recipe = Recipe(
        "x", {"r": 8, "use_dora": True, "load_in_4bit": False, "target_modules": ["q_proj", "v_proj"]}
    )
    command = reproduce_lines(config, make_result([recipe, Recipe("y", {"r": 4})], [500, 400]))[1]
    assert "--r 8 --use-dora --no-load-in-4bit" in command.replace("--target-modules q_proj,v_proj ", "") or (
        "--use-dora" in command
        and "--no-load-in-4bit" in command
        and "--target-modules q_proj,v_proj" in command
    )
    assert "--seed 42" in command and "--dataset sample" in command
