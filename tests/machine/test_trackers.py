"""Results sent to trackers: by clients that record what they are told, and by real ones where installed."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError, InstallError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.machine import trackers
from kmmlu_fast.machine.trackers import TrackedResult, require_trackers, send_results
from kmmlu_fast.reporting.config import CompareConfig

RESULT = TrackedResult(name="base-42", numbers={"accuracy/micro": 0.5, "p": 0.04}, settings={"model": "m"})
Caught = pytest.CaptureFixture[str]


class Client(types.ModuleType):
    """wandb's and trackio's functions; it greets on stdout, as trackio does."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: list[Any] = []

    def init(self, **settings: Any) -> None:
        print("welcome")
        self.told.append(settings)

    def log(self, numbers: dict[str, float]) -> None:
        self.told.append(numbers)

    def finish(self) -> None:
        self.told.append("finished")


def install(monkeypatch: pytest.MonkeyPatch, client: types.ModuleType) -> None:
    monkeypatch.setitem(sys.modules, client.__name__, client)
    monkeypatch.setattr(trackers, "is_module_installed", lambda module: module in sys.modules)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_client_gets_the_row(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Caught) -> None:
    client = Client(name)
    install(monkeypatch, client)
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "mine")
    send_results([name], [RESULT])
    assert client.told == [
        {"project": "mine", "name": "base-42", "config": {"model": "m"}},
        {"accuracy/micro": 0.5, "p": 0.04},
        "finished",
    ]
    assert capsys.readouterr().out == ""  # stdout is for results


def test_a_tracker_that_fails_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client("wandb")
    install(monkeypatch, client)
    monkeypatch.setattr(client, "log", lambda numbers: 1 / 0)
    with caplog.at_level("INFO", "kmmlu_fast"):
        send_results(["wandb"], [RESULT])
    assert (
        "not sent (ZeroDivisionError: division by zero); the results themselves are complete" in caplog.text
    )


def test_all_are_those_that_are_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client("trackio")
    install(monkeypatch, client)
    monkeypatch.setattr(trackers, "is_module_installed", lambda module: module == "trackio")
    send_results(["all"], [RESULT])
    assert client.told[-1] == "finished"
    monkeypatch.setattr(trackers, "is_module_installed", lambda module: False)
    with caplog.at_level("INFO", "kmmlu_fast"):
        send_results(["all"], [RESULT])
    assert "none of tensorboard, trackio, wandb, mlflow is installed" in caplog.text
    with pytest.raises(InstallError, match="needs wandb"):
        require_trackers(["wandb"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tensorbord", "did you mean tensorboard"),
        ("clearml", "clearml follows trainings only; give one of tensorboard, trackio, wandb, mlflow"),
        ("none,wandb", "none stands alone"),
    ],
)
def test_names_are_checked_while_parsing(name: str, part: str) -> None:
    for cls in (EvalConfig, CompareConfig):
        with pytest.raises(ConfigError) as refusal:
            parse_config(cls, ["--report-to", name], "x")
        assert part in str(refusal.value)
        assert parse_config(cls, ["--report-to", "none"], "x").model_dump()["report_to"] == []


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    send_results(["tensorboard"], [RESULT])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "base-42"))
    events.Reload()
    assert "accuracy/micro" in str(events.Tags())
