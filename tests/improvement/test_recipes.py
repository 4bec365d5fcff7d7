"""Recipe files: lists, grids, names, and every fault named."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.improvement.recipes import DRAWN, TRAINED, read_recipes
from kmmlu_fast.training.config import TrainConfig

SHIPPED = Path(__file__).parents[2] / "configs" / "recipes"


def read(tmp_path: Path, text: str):
    file = tmp_path / "recipes.yaml"
    file.write_text(text, encoding="utf-8")
    return read_recipes(file)


def test_a_grid_is_every_combination_and_common_is_in_all(tmp_path: Path) -> None:
    recipes = read(tmp_path, "common: {effective_batch: 8}\ngrid: {size: [10, 20], r: [4, 8]}\n")
    assert [recipe.name for recipe in recipes] == ["size10-r4", "size10-r8", "size20-r4", "size20-r8"]
    assert all(recipe.settings["effective_batch"] == 8 for recipe in recipes)
    assert recipes[0].rows_digest == recipes[1].rows_digest != recipes[2].rows_digest
    assert recipes[0].part(DRAWN) == {"size": 10}


def test_a_list_comes_before_the_grid_and_overrides_common(tmp_path: Path) -> None:
    text = """
common: {r: 4}
recipes: [{name: big, r: 64}, {name: shots, num_fewshot: 5}]
grid: {size: [10]}
"""
    big, shots, grid = read(tmp_path, text)
    assert (big.name, shots.name, grid.name) == ("big", "shots", "size10")
    assert big.part(TRAINED)["r"] == 64 and shots.protocol == ("lm-eval", 5)
    assert big.part(TRAINED)["lr_scheduler_type"] == "warmup_stable_decay"


def test_a_recipe_may_set_what_the_adapter_and_its_optimisation_have_and_the_search_does_not_set() -> None:
    assert set(TRAINED) <= set(TrainConfig.model_fields) and len(set(TRAINED)) == len(TRAINED)
    assert {"r", "use_dora", "learning_rate", "optim", "prompt_style"} <= set(TRAINED)
    assert not {"model", "seed", "max_steps", "data", "output_dir", "held_out", "resume"} & set(TRAINED)


@pytest.mark.parametrize("name", ["quick.yaml", "seed.yaml", "seed-demo.yaml"])
def test_shipped_files_are_read(name: str) -> None:
    assert len(read_recipes(SHIPPED / name)) >= 4


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[1, 2", "is not valid YAML"),
        ("common: {r: 4}", "needs recipes"),
        ("recipes: [{r: 4}]", "holds 1 recipe"),
        ("recipes: [{r: 4}, {rank: 8}]", "rank is not a setting"),
        ("recipes: [{learning_rates: 1.0e-4}, {r: 8}]", "did you mean learning_rate"),
        ("recipes: [{r: 4}, {r: 0}]", "recipe 2: .*r"),
        ("recipes: [{size: x}, {r: 8}]", "recipe 1: .*size"),
        ("recipes: [{name: a, r: 4}, {name: a, r: 8}]", "two recipes are called a"),
        ("recipes: [{name: a, r: 4}, {name: b, r: 4}]", "a and b have the same settings"),
        ("recipes: {r: 4}", "recipes is not a list"),
        ("recipes: [3, 4]", "recipe 1 is not a mapping"),
        ("grid: {r: 4}", "grid: r needs a list"),
        ("grid: {r: []}", "grid: r needs a list"),
        (f"grid: {{size: {list(range(1, 11))}, r: {list(range(1, 22))}}}", "210"),
        ("recipes: [{num_fewshot: 9}, {r: 4}]", "num_fewshot 9"),
        ("recipe: [{r: 4}]\nrecipes: [{r: 4}, {r: 8}]", "recipe is not a section"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("recipes: [{weak_subjects: [Nope]}, {r: 8}]", "recipe 1: .*Nope"),
        (
            "recipes: [{name: a, r: 8}, {name: b, r: 8, prompt_style: lm-eval}]",
            "a and b have the same settings",
        ),
        (
            "recipes: [{name: a, learning_rate: 1e-4}, {name: b, learning_rate: 0.0001}]",
            "a and b have the same",
        ),
        ("recipes: [{data: [a.jsonl, b.jsonl]}, {r: 8}]", "recipe 1: data .* is not the path of one file"),
        ("recipes: [{data: 5}, {r: 8}]", "recipe 1: data 5 is not the path of one file"),
        ("recipes: [{data: none.jsonl}, {r: 8}]", "recipe 1: data none.jsonl: no such file"),
        ("recipes: [{name: 가, r: 8}, {name: 가, r: 4}]", "two recipes are called 가"),
        (
            "recipes: [{name: Big, r: 8}, {name: big, r: 4}]",
            "Big and big are one name where case is ignored; give them names of their own",
        ),
        (
            "recipes: [{rationale: given}, {r: 8}]",
            "recipe 1: rationale given takes the explanations of one's own rows: add data, or give self",
        ),
    ],
)
def test_what_would_fail_later_or_is_the_same_is_refused_now(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read(tmp_path, text)


def test_korean_names_and_numbers_that_yaml_reads_as_text(tmp_path: Path) -> None:
    first, second = read(tmp_path, "recipes: [{name: 수학 위주, learning_rate: 1e-4}, {name: 나}]")
    assert (first.name, second.name) == ("수학-위주", "나")
    assert first.settings["learning_rate"] == 1e-4


def test_long_names_are_cut_and_stay_apart(tmp_path: Path) -> None:
    """A directory's name has 255 bytes; a Korean letter takes three."""
    long = "수학" * 60
    first, second = read(tmp_path, f"recipes: [{{name: {long}가, r: 4}}, {{name: {long}나, r: 8}}]")
    assert first.name != second.name and first.name.startswith("수학")
    assert all(len(recipe.name.encode()) <= 160 for recipe in (first, second))
    (short, _) = read(tmp_path, f"recipes: [{{name: {'a' * 160}, r: 4}}, {{r: 8}}]")
    assert short.name == "a" * 160


def write_questions(path: Path, explanations: list[str | None]) -> Path:
    rows = [
        {"question": f"{i}번 물음?", "options": ["가", "나"], "answer": "B", "explanation": text}
        for i, text in enumerate(explanations)
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_explanations_of_ones_own_rows_are_a_setting_of_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write_questions(tmp_path / "own.jsonl", ["까닭"] * 3)
    caplog.set_level("INFO", logger="kmmlu_fast")
    text = f"recipes: [{{name: a, data: {own}, rationale: given}}, {{name: b, data: {own}, rationale: none}}]"
    explained, letters = read(tmp_path, text)
    assert explained.train_settings["rationale"] == "given" and explained.part(DRAWN) == {
        "rationale": "given"
    }
    assert letters.train_settings["rationale"] == "none" and explained.rows_digest == letters.rows_digest
    assert "have explanations" not in caplog.text
    drawn, unsaid = read(tmp_path, f"recipes: [{{rationale: self}}, {{name: own, data: {own}}}]")
    assert "rationale" not in drawn.train_settings and "rationale" not in unsaid.train_settings
    assert f"own: the questions of {own} have explanations, and are trained on their letters" in caplog.text


def test_questions_without_the_explanation_that_is_asked_for_are_named(tmp_path: Path) -> None:
    own = write_questions(tmp_path / "own.jsonl", ["까닭", None, "까닭"])
    text = f"recipes: [{{name: a, data: {own}, rationale: %s}}, {{r: 8}}]"
    with pytest.raises(ConfigError, match=r"a: rationale given: .*own\.jsonl row 2 is a question without"):
        read(tmp_path, text % "given")
    with pytest.raises(
        ConfigError, match="rationale self writes the reasoning of drawn rows; with data give"
    ):
        read(tmp_path, text % "self")
    with pytest.raises(ConfigError, match="rationale"):
        read(tmp_path, text % "taken")


def test_how_long_a_recipe_trains_beside_another(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"instruction": "a", "output": "b"}\n' * 7, encoding="utf-8")
    found = read(tmp_path, f"recipes: [{{size: 40, num_train_epochs: 2}}, {{r: 4}}, {{data: {own}}}]")
    assert [recipe.row_passes for recipe in found] == [80, 1500, 21]


@pytest.mark.parametrize("name", ["own.json", "own.jsonl", "own.csv", "own.parquet"])
def test_rows_are_counted_in_every_format(tmp_path: Path, name: str) -> None:
    rows = pl.DataFrame({"instruction": ["a\nb"] * 7, "input": [""] * 7, "output": ["c\n"] * 7})
    own = tmp_path / name
    writers = {".json": "write_json", ".jsonl": "write_ndjson", ".csv": "write_csv"}
    getattr(rows, writers.get(own.suffix, "write_parquet"))(own)
    found = read(tmp_path, f"recipes: [{{size: 40}}, {{data: {own}, num_train_epochs: 2}}]")
    assert found[1].row_passes == 14


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_recipes(tmp_path / "none.yaml")


def test_shipped_recipes_are_found_without_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_recipes(Path("configs/recipes/quick.yaml"))) == 6
    with pytest.raises(ConfigError, match=r"elsewhere/quick\.yaml"):
        read_recipes(Path("elsewhere/quick.yaml"))
