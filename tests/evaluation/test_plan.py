"""What the engine decides by the number of questions is decided once: one engine answers every plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.engines.vllm import compiled_mode
from kmmlu_fast.engines.vllm import kind as vllm_kind
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan, make_eval_plans
from kmmlu_fast.machine.host import Cpu


def plans_of(model: Path, folder: Path, flags: str) -> list[EvalPlan]:
    argv = ["--model", str(model), "--dataset", "sample", "--output-dir", str(folder)]
    plans = make_eval_plans(parse_config(EvalConfig, [*argv, *flags.split()], "eval"))
    for plan in plans:
        plan.close()
    return plans


@pytest.fixture
def on_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which compiling pays from 60 questions: more than the sample has, fewer than twice of it."""
    monkeypatch.setattr(vllm_kind, "detect_cpu", lambda: Cpu("Xeon", frozenset(["amx_bf16"])))
    monkeypatch.setattr("kmmlu_fast.machine.device.has_gpu", lambda: False)
    gain = compiled_mode.CompiledGain(10.0, 20.0, 3.0)
    assert gain.worth_questions == 60
    monkeypatch.setitem(compiled_mode.GAINS, "amx_bf16", gain)


@pytest.mark.usefixtures("on_amx")
@pytest.mark.parametrize(
    ("flags", "compiled"),
    [
        ("--limit 1 --protocols lm-eval,bare-letter", True),  # as many as 45 questions twice
        ("--limit 2 --protocols lm-eval,kmmlu-direct", False),  # one of them answers in texts
        ("--limit 2 --protocols kmmlu-direct,lm-eval", False),
        ("--limit 1", False),
    ],
)
def test_all_protocols_are_compiled_or_none(model: Path, tmp_path: Path, flags: str, compiled: bool) -> None:
    plans = plans_of(model, tmp_path, f"--compile auto --dtype bfloat16 {flags}")
    assert {plan.config.compile for plan in plans} == {"on" if compiled else "off"}
    assert {"compiled" in plan.parts for plan in plans} == {compiled}
    assert len({note for plan in plans for note in plan.notes if "compiled" in note}) == 1
    assert len({plan.max_model_len for plan in plans}) == 1


@pytest.mark.usefixtures("on_amx")
@pytest.mark.parametrize(
    ("flags", "compiled"),
    [
        ("", True),
        ("--questions 20", False),
        ("--questions 500", True),
        ("--until-precise 5", True),  # may ask all of them
        ("--until-precise 5 --max-questions 59", False),
        ("--until-precise 5 --max-questions 60", True),
    ],
)
def test_only_questions_that_may_be_asked_count(
    model: Path, tmp_path: Path, flags: str, compiled: bool
) -> None:
    (plan,) = plans_of(model, tmp_path, f"--limit 2 --compile auto --dtype bfloat16 {flags}")
    assert len(plan.asked) > 60 and (plan.config.compile == "on") is compiled


def test_a_plan_of_several_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match="--protocols lm-eval, bare-letter: give one protocol here"):
        make_eval_plan(EvalConfig(model=str(model), dataset="sample", protocols=["lm-eval", "bare-letter"]))
