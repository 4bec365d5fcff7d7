"""``serve-engine`` starts the engine that eval would, and ends when the model's files have changed."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from warm_cases import LoggingEngine, wait_until

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.engines import factory
from kmmlu_fast.engines.warm.address import make_socket_folder
from kmmlu_fast.engines.warm.client import find_warm_engine
from kmmlu_fast.engines.warm.config import WarmEngineConfig
from kmmlu_fast.engines.warm.identity import identify_engine
from kmmlu_fast.engines.warm.keeping import keep_engine_warm
from kmmlu_fast.engines.warm.running import list_warm_engines
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_eval_plan

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")


def test_evals_engine_is_found_until_the_model_changes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(model, tmp_path / "model")
    lengths: list[int] = []

    def open_engine(config: Any, model: Any, adapters: Any, max_model_len: int) -> LoggingEngine:
        lengths.append(max_model_len)
        return LoggingEngine()

    monkeypatch.setattr(factory, "open_engine", open_engine)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    ends: list[str] = []
    config = WarmEngineConfig(model=str(own), idle_minutes=1)
    thread = threading.Thread(target=lambda: ends.append(keep_engine_warm(config)))
    thread.start()
    wait_until(lambda: list_warm_engines() or not thread.is_alive())
    plan = make_eval_plan(EvalConfig(model=str(own), dataset="sample", limit=1))
    identity = identify_engine(plan.config, plan.model, [], plan.max_model_len)
    folder = make_socket_folder()
    engine = find_warm_engine(identity, folder, pytest.fail)
    assert engine is not None and lengths == [min(4096, plan.model.context_tokens)]
    engine.close()
    (own / "config.json").write_text((own / "config.json").read_text() + "\n")
    assert find_warm_engine(identity, folder, pytest.fail) is None
    thread.join(30)
    assert ends == ["the model's files have changed"]


def test_engines_that_cannot_be_kept_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="needs one vLLM in one process"):
        keep_engine_warm(WarmEngineConfig(model=str(model), load_format="dummy"))
