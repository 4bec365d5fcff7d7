"""Opening an engine: advice is for those who chose it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.engines import factory
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.models.model import Model


@pytest.mark.parametrize("is_users_choice", [True, False])
def test_another_engine_is_advised_only_if_one_was_chosen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_users_choice: bool
) -> None:
    engine: Any = object()
    kind = SimpleNamespace(advice=lambda: "take another", open=lambda *_: engine)
    monkeypatch.setattr(factory, "find_engine_kind", lambda _: kind)
    caplog.set_level("INFO", "kmmlu_fast")
    config, model = EngineConfig(model="x"), Model("x", "x", None, "")
    opened = factory.open_engine(config, model, [], 8, is_users_choice=is_users_choice)
    assert opened is engine
    assert ("take another" in caplog.text) is is_users_choice
