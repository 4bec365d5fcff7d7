"""--protocols through a whole evaluation with a fake engine: one engine, a run per protocol, the table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import engine_cases
import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.reporting.terminal.summary import print_protocols, print_summary

THREE = ("--protocols", "lm-eval,bare-letter,kmmlu-direct")


def run(model: Path, root: Path, *flags: str, opened: list[int] | None = None) -> list[Any]:
    argv = ["--model", str(model), "--dataset", "sample", "--output-dir", str(root), *flags]

    def open_engine(*arguments: Any) -> FakeEngine:
        if opened is not None:
            opened.append(arguments[1])
        return FakeEngine(text=" B")

    return run_evaluation(parse_config(EvalConfig, argv, "eval"), open_engine)


def test_one_engine_answers_all_protocols_and_the_table_says_why(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[int] = []
    runs = run(model, tmp_path, *THREE, opened=opened)
    assert len(opened) == 1 and len({run.path for run in runs}) == 3
    assert [run.config["config"]["protocol"] for run in runs] == ["lm-eval", "bare-letter", "kmmlu-direct"]
    assert runs[2].frame["prediction"].unique().to_list() == ["B"]
    print_summary(runs)
    print_protocols(runs, ["lm-eval", "bare-letter", "kmmlu-direct"])
    text = capsys.readouterr().out
    assert "base [bare-letter]" in text and "why the numbers differ" in text.lower()
    assert "scored or generated" in text and "written form" in text


def test_a_protocol_finds_the_run_that_its_flags_made(model: Path, tmp_path: Path) -> None:
    (plain,) = run(model, tmp_path)
    opened: list[int] = []
    runs = run(model, tmp_path, *THREE, opened=opened)
    assert runs[0].path == plain.path
    again = run(model, tmp_path, *THREE, opened=opened)
    assert [each.path for each in again] == [each.path for each in runs] and len(opened) == 1


def test_a_contradiction_is_refused_before_an_engine_starts(model: Path, tmp_path: Path) -> None:
    opened: list[int] = []
    with pytest.raises(ConfigError, match="--protocol lm-eval fixes --num-fewshot 0, not 3"):
        run(model, tmp_path, *THREE, "--num-fewshot", "3", opened=opened)
    assert opened == []


def test_a_wording_of_ones_own_makes_a_run_of_its_own(model: Path, tmp_path: Path) -> None:
    declared = tmp_path / "short.yaml"
    declared.write_text(
        "name: short-answers\ntitle: t\nsource: https://example.org\nwording:\n"
        "  template: '{question}{options} ='\n  option: ' ({letter}) {text}'\n  delimiter: ' '\n",
        encoding="utf-8",
    )
    (own,) = run(model, tmp_path / "runs", "--protocol", str(declared))
    (plain,) = run(model, tmp_path / "runs")
    assert own.facts["prompt_style"] == "short-answers" != plain.facts["prompt_style"]
    assert own.facts["template_digest"] != plain.facts["template_digest"]
    assert own.metrics.letter_forms.scored == "lm-eval"


@pytest.mark.engine
def test_a_real_engine_answers_three_protocols(model: Path, tmp_path: Path) -> None:
    """vLLM: letters in both forms and texts, one after the other in one engine."""
    os.environ.update(engine_cases.ENVIRONMENT)
    argv = ["--model", str(model), "--dataset", "sample", "--limit", "1", "--output-dir", str(tmp_path)]
    argv += ["--dtype", "float32", "--engine", "vllm", *THREE]
    spaced, bare, direct = run_evaluation(parse_config(EvalConfig, argv, "eval"))
    assert len(spaced.frame) == len(bare.frame) == len(direct.frame) == 45
    assert [run.metrics.letter_forms.scored for run in (spaced, bare)] == ["lm-eval", "bare"]
    for row, other in zip(spaced.frame.to_dicts(), bare.frame.to_dicts(), strict=True):
        assert row["question_id"] == other["question_id"]
        scored = [other[f"logprob_{letter}"] for letter in "ABCD"]
        assert row["bare_logprobs"] == pytest.approx(scored, abs=1e-3)
    assert direct.frame["texts"].null_count() == 0
