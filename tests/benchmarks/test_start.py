"""bench.start: what is measured, and that a user's own warm engine is not. Nothing is timed."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import start
from bench.common import ROOT
from kmmlu_fast.core.errors import EngineError


def test_every_command_once_a_turn_and_the_warm_up_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[tuple[str, str, bool]] = []

    def timed_command(tree: Path, arguments: list[str], runtime: Path) -> tuple[float, float]:
        ran.append((tree.name, runtime.name, "--adapter" in arguments))
        return float(len(ran)), 1.0

    def warm_engine(model: str, runtime: Path) -> Any:
        ran.append(("engine", runtime.name, False))
        return contextlib.nullcontext()

    monkeypatch.setattr(start, "timed_command", timed_command)
    monkeypatch.setattr(start, "warm_engine", warm_engine)
    config = start.StartConfig(dataset="sample", repeats=1, warm=True, adapter="org/lora")
    rows = start.measure(config, {"now": ROOT, "before": tmp_path})
    turn = [(ROOT.name, "cold", False)] * 2 + [(ROOT.name, "cold", True)]
    other = [(tmp_path.name, *rest) for _, *rest in turn]
    warm_turn = [(ROOT.name, "warm", False), (ROOT.name, "warm", True)]
    warm = [("engine", "warm", False), *warm_turn * 2]
    assert ran == [*turn, *other, *turn, *other, *warm]
    names = [(row["tree"], row["what"]) for row in rows]
    assert ("now", "first answers, warm engine") in names and ("before", start.ADAPTER) in names
    assert all(row["sec"]["runs"] == 1 for row in rows) and len(rows) == 8


def test_a_warm_engine_that_was_not_asked_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", "import sys; print('engine: starting vllm', file=sys.stderr)"]
    monkeypatch.setattr(start, "eval_words", lambda arguments: words)
    (tmp_path / "warm").mkdir()
    assert start.timed_command(tmp_path, [], tmp_path)[0] > 0
    with pytest.raises(EngineError, match="the warm engine was not asked: engine: starting vllm"):
        start.timed_command(tmp_path, [], tmp_path / "warm")
