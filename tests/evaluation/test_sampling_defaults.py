"""Sampling that no flag sets: the model's own if several samples vote or it thinks, else greedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from template_cases import OWN

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan
from kmmlu_fast.prompting.cot import ChainOfThought

SETTINGS = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}


@pytest.fixture
def sampled_model(model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sampled"
    shutil.copytree(model, folder)
    (folder / "generation_config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return folder


@pytest.fixture
def thinks(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "thinks.jinja"
    path.write_text(OWN["thought_by_switch"], encoding="utf-8")
    return ("--prompt-style", "chat", "--chat-template", str(path), "--thinking")


def plan_of(model: Path, root: Path, *flags: str) -> EvalPlan:
    fixed = ("--dataset", "sample", "--subjects", "Law", "--limit", "2", "--output-type", "cot")
    argv = ["--model", str(model), "--output-dir", str(root), *fixed, *flags]
    plan = make_eval_plan(parse_config(EvalConfig, argv, "eval"))
    plan.close()
    return plan


def sampling(plan: EvalPlan) -> tuple[float, float, int]:
    method = plan.method
    assert isinstance(method, ChainOfThought)
    asked = (method.temperature, method.top_p, method.top_k)
    assert asked == (plan.config.temperature, plan.config.top_p, plan.config.top_k)  # config.json says it too
    return asked


def test_samples_and_thoughts_are_the_models_own(
    sampled_model: Path, thinks: tuple[str, ...], tmp_path: Path
) -> None:
    for flags in (("--num-samples", "4"), thinks):
        plan = plan_of(sampled_model, tmp_path, *flags)
        assert sampling(plan) == (0.6, 0.95, 20)
        assert plan.parts["decoding"]["top_k"] == 20
        assert any("temperature 0.6, top-p 0.95, top-k 20 (--temperature 0" in note for note in plan.notes)


def test_any_flag_replaces_all_of_them(sampled_model: Path, thinks: tuple[str, ...], tmp_path: Path) -> None:
    assert sampling(plan_of(sampled_model, tmp_path, *thinks, "--temperature", "0")) == (0.0, 1.0, 0)
    four = ("--num-samples", "4", "--temperature", "0.7")
    assert sampling(plan_of(sampled_model, tmp_path, *four)) == (0.7, 1.0, 0)
    assert "top_k" not in plan_of(sampled_model, tmp_path, *four).parts["decoding"]


def test_one_sample_without_thinking_stays_greedy(sampled_model: Path, tmp_path: Path) -> None:
    plan = plan_of(sampled_model, tmp_path)
    assert sampling(plan) == (0.0, 1.0, 0) and "top_k" not in plan.parts["decoding"]


def test_a_greedy_run_is_continued_greedily(
    sampled_model: Path, thinks: tuple[str, ...], tmp_path: Path
) -> None:
    greedy = plan_of(sampled_model, tmp_path, *thinks, "--temperature", "0")
    fingerprint = compute_fingerprint({**greedy.parts, "adapter_digest": None})
    (tmp_path / f"earlier-{fingerprint}").mkdir()
    plan = plan_of(sampled_model, tmp_path, *thinks)
    assert plan.parts == greedy.parts
    assert any("greedy decoding, as in the run" in note for note in plan.notes)


def test_equal_samples_are_refused(model: Path, tmp_path: Path, sampled_model: Path) -> None:
    with pytest.raises(ConfigError, match="needs --temperature above 0"):
        plan_of(sampled_model, tmp_path, "--num-samples", "4", "--temperature", "0")
    (sampled_model / "generation_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"generation_config\.json names no sampling"):
        plan_of(sampled_model, tmp_path, "--num-samples", "4")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (
            ("--thinking-budgets", "64,600"),
            r"--thinking-budgets 600: texts are cut below 512",
        ),
        (("--thinking-budgets", "64,64"), "names one twice"),
        (("--vote-stopping", "exact", "--num-samples", "2"), "needs --num-samples of 3 or more"),
        (("--vote-stopping", "sure"), "--vote-stopping 'sure'"),
        (("--thinking-budgets", "many"), "--thinking-budgets 'many'"),
        (("--output-type", "generate_until", "--top-k", "5"), "--top-k goes with --output-type cot"),
    ],
)
def test_flags_that_do_not_go_together(flags: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    argv = ["--model", str(tmp_path), "--output-type", "cot", *flags]
    with pytest.raises(ConfigError, match=problem):
        parse_config(EvalConfig, argv, "eval")


def test_budgets_are_read_in_thousands() -> None:
    argv = ["--output-type", "cot", "--max-tokens", "8192", "--thinking-budgets", "1k,256,4K"]
    assert parse_config(EvalConfig, argv, "eval").thinking_budgets == [1024, 256, 4096]
