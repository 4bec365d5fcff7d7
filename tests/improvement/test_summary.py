"""What a search says: ingredients only with enough recipes, the shrunk gain, the command for the winner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kmmlu_fast.analysis.exact_band import ChangeInterval
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import Confirmation
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.search import RungScores, SearchResult
from kmmlu_fast.improvement.summary import (
    ingredient_lines,
    recipe_rows,
    reproduce_lines,
    shrunk_selection_gain,
    verdict_sentences,
)

QUESTIONS = 1000


def right(count: int) -> np.ndarray:
    return np.arange(QUESTIONS) < count


def make_result(
    recipes: list[Recipe], counts: list[int], rival: ChangeInterval | None = None
) -> SearchResult:
    scores = RungScores(
        rung=0,
        base={("lm-eval", 0): right(400)},
        recipes={recipe.name: [right(count)] for recipe, count in zip(recipes, counts, strict=True)},
    )
    found = Confirmation(
        questions=500,
        base=0.4,
        gains={"best-s0": ChangeInterval(0.02, 0.01, 0.03)},
        verdicts={"best-s0": "better"},
        effect=None,
        rival=rival,
        rival_accuracy=0.45,
        runs=[],
    )
    return SearchResult(
        recipes=recipes,
        rungs=[scores],
        dropped={},
        winner=recipes[int(np.argmax(counts))],
        adapters={"best-s0": Path("out/best")},
        confirmation=found,
        rows=Path("rows.jsonl"),
        spent_sec=1.0,
    )


def grid(sizes: list[int], ranks: list[int]) -> list[Recipe]:
    return [Recipe(f"n{size}-r{rank}", {"size": size, "r": rank}) for size in sizes for rank in ranks]


def test_ingredients_are_told_apart_with_enough_recipes() -> None:
    recipes = grid([10, 20], [4, 8, 16, 32, 64, 128])
    counts = [
        400 + (20 if recipe.settings["size"] == 20 else 0) + (place % 3)
        for place, recipe in enumerate(recipes)
    ]
    too_few = "\n".join(ingredient_lines(make_result(recipes, counts)))
    assert "too few recipes (12, with 6 settings that vary)" in too_few
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
        (ChangeInterval(0.02, 0.01, 0.03), "It beats the base with examples"),
        (ChangeInterval(-0.02, -0.03, -0.01), "It is worse than the base with examples"),
        (ChangeInterval(0.0, -0.01, 0.01), "It is not shown to differ from the base with examples"),
    ],
)
def test_the_rival_is_named_as_it_came_out(rival: ChangeInterval, words: str) -> None:
    result = make_result(grid([10, 20], [4, 8]), [400, 402, 398, 412], rival)
    sentences = " ".join(verdict_sentences(result))
    assert words in sentences and "+2.0 pp (+1.0 to +3.0)" in sentences and "better" in sentences


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
