"""What compare and report are to read is looked up once for a command, and anew for the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.reporting import inputs
from kmmlu_fast.reporting.config import CompareConfig


def test_the_latest_runs_are_those_of_each_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook a second ``compare --latest`` comes after another evaluation."""
    asked: list[Path] = []

    def look_up(names: list[str], folder: Path, latest: bool) -> list[str]:
        asked.append(folder)
        return [f"run-{len(asked)}"]

    monkeypatch.setattr(inputs, "by_name", look_up)
    first, second = (CompareConfig(latest=True) for _ in range(2))
    assert [inputs.resolve_run_paths(first) for _ in range(2)] == [["run-1"], ["run-1"]]
    assert inputs.resolve_run_paths(second) == ["run-2"] and len(asked) == 2
