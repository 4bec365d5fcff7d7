"""eval finds the user's warm engine by itself, and what it writes does not depend on it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from warm_cases import LoggingEngine, warm_thread

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import AdapterError, ModelError
from kmmlu_fast.engines import factory
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.engines.warm.address import make_socket_folder
from kmmlu_fast.engines.warm.identity import EngineIdentity, identify_engine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.open_engines import choose_leading_plan
from kmmlu_fast.evaluation.plan import make_eval_plan
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models import merging
from kmmlu_fast.models.changes import check_adapter_unchanged

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


@pytest.fixture
def no_merging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "merge_adapter", lambda *arguments: pytest.fail("merged"))


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


@pytest.mark.parametrize(
    ("methods", "leading"),
    [
        ([("multiple_choice", 0.0), ("multiple_choice", 0.0)], 0),
        ([("multiple_choice", 0.0), ("generate_until", 0.0), ("cot", 0.0)], 1),
        ([("multiple_choice", 0.0), ("generate_until", 0.0), ("generate_until", 0.5)], 2),
    ],
)
def test_the_engine_is_set_up_for_the_protocol_that_asks_most(
    methods: list[tuple[str, float]], leading: int
) -> None:
    """On a CPU an engine that was not told of sampling prefills in chunks, after which vLLM cannot sample."""
    configs = [SimpleNamespace(output_type=method, temperature=degree) for method, degree in methods]
    plans: list[Any] = [SimpleNamespace(config=config) for config in configs]
    assert choose_leading_plan(plans) is plans[leading]


def test_of_several_protocols_one_engine_opens_that_can_do_all(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def open_engine(config: Any, *rest: Any, **more: Any) -> FakeEngine:
        seen.append(config)
        return FakeEngine(text=" B")

    monkeypatch.setattr(factory, "open_engine", open_engine)
    names = ["lm-eval", "kmmlu-direct", "bare-letter"]
    run_evaluation(config_of(model, tmp_path, protocols=names, warm_engine=False))
    assert [config.output_type for config in seen] == ["generate_until"]


class ReplacedMeanwhile(LoggingEngine):
    """While it reads an adapter, somebody writes into a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def swap(self, adapter: Any) -> None:
        if adapter is not None:
            self._path.write_text(self._path.read_text() + " ")
            check_adapter_unchanged(adapter)  # as vLLM's engine does
        super().swap(adapter)


@pytest.mark.parametrize(
    ("replaced", "error"), [("base/config.json", ModelError), ("lora/adapter_config.json", AdapterError)]
)
def test_files_replaced_in_the_middle_are_not_answered_under_the_old_digest(
    model: Path, lora: Path, tmp_path: Path, replaced: str, error: type[Exception], no_merging: None
) -> None:
    base = shutil.copytree(model, tmp_path / "base")
    adapter = shutil.copytree(lora, tmp_path / "lora")
    config = config_of(base, tmp_path / "runs", adapter=[str(adapter)])
    with pytest.raises(error, match="changed since this command read them"):
        run_evaluation(config, lambda *arguments: ReplacedMeanwhile(tmp_path / replaced))
    answered = [path.parent.name for path in (tmp_path / "runs").glob("*/metrics.json")]
    assert len(answered) == 1 and answered[0].startswith("base-")


def test_a_base_replaced_while_its_engine_starts_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shutil.copytree(model, tmp_path / "base")
    engine = LoggingEngine()

    def open_engine(*arguments: Any) -> LoggingEngine:
        (base / "config.json").write_text((base / "config.json").read_text() + " ")
        return engine

    monkeypatch.setattr(factory, "open_engine", open_engine)
    with pytest.raises(ModelError, match="changed since this command read them"):
        run_evaluation(config_of(base, tmp_path / "runs", warm_engine=False))
    assert engine.log == ["closed"]
