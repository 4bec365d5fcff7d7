"""The winner's commands hold every setting, in words that the commands take."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from made_searches import FakeWorkers, make_config, make_dataset, make_result

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.improvement.recipes import Recipe, read_recipes
from kmmlu_fast.improvement.reproduction import reproduce_lines
from kmmlu_fast.improvement.search import run_search
from kmmlu_fast.training.config import TrainConfig

SAMPLE = Path("sample")


def arguments(line: str) -> list[str]:
    """What follows the verb in "...: python -m kmmlu_fast.VERB ..."."""
    return shlex.split(line.partition(": ")[2])[3:]


def test_the_command_names_every_setting_of_the_winner(tmp_path: Path) -> None:
    config = make_config(tmp_path, SAMPLE)
    recipe = Recipe(
        "x", {"r": 8, "use_dora": True, "load_in_4bit": False, "target_modules": ["q_proj", "v_proj"]}
    )
    _, train, _ = reproduce_lines(config, make_result([recipe, Recipe("y", {"r": 4})], [500, 400]))
    read = parse_config(TrainConfig, arguments(train), "train")
    assert (read.r, read.use_dora, read.load_in_4bit) == (8, True, False)
    assert read.target_modules == ["q_proj", "v_proj"] and read.lr_scheduler_type == "warmup_stable_decay"
    assert (read.seed, read.dataset, read.held_out, read.keep) == (42, "sample", 0, "last")


def test_what_the_file_leaves_unset_and_one_for_true_are_said_as_the_command_takes_them(
    tmp_path: Path,
) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("common: {use_dora: 1}\ngrid: {neftune_noise_alpha: [null, 5.0]}", encoding="utf-8")
    without, with_noise = read_recipes(file)
    config = make_config(tmp_path, SAMPLE)
    for recipe, noise in ((without, None), (with_noise, 5.0)):
        _, train, _ = reproduce_lines(config, make_result([recipe, Recipe("y", {"r": 4})], [500, 400]))
        assert "None" not in train and "--use-dora " in f"{train} "
        read = parse_config(TrainConfig, arguments(train), "train")
        assert (read.neftune_noise_alpha, read.use_dora) == (noise, True)


def test_eval_asks_the_model_that_the_search_asked(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "model": "some/model",
        "revision": "abc",
        "trust_remote_code": True,
        "dataset_revision": "def",
        "engine": "transformers",
        "quantization": "nf4",
        "dtype": "bfloat16",
        "seed": 7,
    }
    config = make_config(tmp_path, SAMPLE, **asked)
    recipe = Recipe("x", {"num_fewshot": 2, "prompt_style": "qa"})
    _, train, evaluate = reproduce_lines(config, make_result([recipe, Recipe("y", {})], [500, 400]))
    read = parse_config(EvalConfig, arguments(evaluate), "eval")
    assert {name: getattr(read, name) for name in asked} == asked
    assert (read.num_fewshot, read.prompt_style, read.adapter) == (2, "qa", ["out/best"])
    trained = parse_config(TrainConfig, arguments(train), "train")
    assert (trained.revision, trained.trust_remote_code, trained.seed) == ("abc", True, 7)


class WatchedWorkers(FakeWorkers):
    """Keeps the settings of every training."""

    def __init__(self, skill: dict[str, float]) -> None:
        super().__init__(skill, [])
        self.rationales: dict[str, Any] = {}

    def _train_one(self, settings: dict[str, Any]) -> Path:
        name = Path(settings["output_dir"]).name
        self.rationales[name] = settings.get("rationale")
        return super()._train_one(settings)


def test_explanations_of_ones_own_rows_are_trained_on_where_asked(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra [improve] is not installed")
    rows = [
        {
            "question": f"까닭을 묻는 {i}번째?",
            "options": ["가", "나"],
            "answer": "B",
            "explanation": f"까닭 {i}",
        }
        for i in range(20)
    ]
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    recipes = f"recipes: [{{name: explained, data: {own}, rationale: given}}, {{name: letters, data: {own}}}]"
    config = make_config(tmp_path, make_dataset(tmp_path / "kmmlu"), recipes, rungs=1, seeds=1)
    workers = WatchedWorkers({"explained": 0.9})
    result = run_search(config, workers)
    assert workers.rationales == {"explained-s0": "given", "letters-s0": None}
    _, train, _ = reproduce_lines(config, result)
    assert "--rationale given" in train and str(own) in train
