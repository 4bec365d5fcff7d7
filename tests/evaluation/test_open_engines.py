"""eval finds the user's warm engine by itself, and what it writes does not depend on it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from warm_cases import LoggingEngine, warm_thread

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.engines import factory
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.engines.warm.address import make_socket_folder
from kmmlu_fast.engines.warm.identity import EngineIdentity, identify_engine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_eval_plan
from kmmlu_fast.evaluation.session import run_evaluation

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The engines that were started in this process."""
    names: list[str] = []

    def open_engine(config: Any, model: Any, *rest: Any, **more: Any) -> FakeEngine:
        names.append(model.name)
        return FakeEngine(max_in_flight=4)

    monkeypatch.setattr(factory, "open_engine", open_engine)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return names


def config_of(model: Path, folder: Path, **more: Any) -> EvalConfig:
    more = {"dataset": "sample", "limit": 1, "adapter_mode": "swap", **more}
    return build_config(EvalConfig, model=str(model), output_dir=folder, **more)


def identity_of(config: EvalConfig, longer: int = 0) -> EngineIdentity:
    plan = make_eval_plan(config)
    found = identify_engine(plan.config, plan.model, [], plan.max_model_len + longer)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"until_decided": True},
        {"output_type": "cot", "max_tokens": 8, "cot_below": 1.0},
        {"num_fewshot": 2, "rotations": 2},
    ],
)
def test_a_warm_engine_is_asked_and_the_runs_are_the_same(
    opened: list[str], model: Path, lora: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    cold = run_evaluation(config_of(model, tmp_path / "cold", adapter=[str(lora)], **more))
    assert opened == ["base"]
    asked = config_of(model, tmp_path / "warm", adapter=[str(lora)], **more)
    engine = LoggingEngine()
    with warm_thread(make_socket_folder(), engine, identity_of(asked, longer=64)):
        warm = run_evaluation(asked)
    assert opened == ["base"] and "swap lora" in engine.log
    for one, two in zip(cold, warm, strict=True):
        assert one.path is not None and two.path is not None
        assert one.path.name == two.path.name  # with the fingerprint
        assert one.predictions.equals(two.predictions)
        environments = [json.loads((each.path / "environment.json").read_text()) for each in (one, two)]
        assert [each["engine"].get("warm") for each in environments] == [None, True]


def test_not_if_it_is_switched_off_or_its_files_are_others(
    opened: list[str], model: Path, tmp_path: Path
) -> None:
    own = config_of(model, tmp_path / "own", warm_engine=False)
    engine = LoggingEngine()
    with warm_thread(make_socket_folder(), engine, identity_of(own)):
        run_evaluation(own)
        assert len(opened) == 1
        copy = tmp_path / "base"
        copy.mkdir()
        for path in model.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        identity = identity_of(config_of(copy, tmp_path / "x"))
        (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
        with warm_thread(make_socket_folder(), engine, identity):
            run_evaluation(config_of(copy, tmp_path / "changed"))
    assert len(opened) == 2 and "afresh" not in engine.log


def test_finished_runs_are_found_whoever_kept_the_engine(
    opened: list[str], model: Path, tmp_path: Path
) -> None:
    run_evaluation(config_of(model, tmp_path / "runs"))
    again = run_evaluation(config_of(model, tmp_path / "runs", warm_engine=False))
    assert len(opened) == 1 and again[0].path is not None
