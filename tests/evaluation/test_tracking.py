"""A run as one row for trackers; sent after an evaluation, also of one that was finished before."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import InstallError
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.machine import trackers
from kmmlu_fast.machine.trackers import TrackedResult


def test_an_evaluation_is_sent_and_still_the_same_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[TrackedResult] = []

    def send(result: TrackedResult) -> str:
        sent.append(result)
        return "there"

    monkeypatch.setitem(trackers.SENDERS, "mlflow", send)
    asked = {"model": model, "dataset": "sample", "output_dir": tmp_path, "subjects": ["Law", "Math"]}
    (plain,) = run_evaluation(build_config(EvalConfig, **asked), lambda *parts: FakeEngine())
    config = build_config(EvalConfig, report_to="mlflow", **asked)
    with pytest.raises(InstallError, match="--report-to mlflow: needs mlflow"):
        monkeypatch.setattr(trackers, "is_module_installed", lambda module: False)
        run_evaluation(config)
    monkeypatch.setattr(trackers, "is_module_installed", lambda module: True)
    (run,) = run_evaluation(config)
    assert run.path == plain.path  # reused: who is told does not change what was asked
    (row,) = sent
    assert run.path is not None and row.name == run.path.name
    assert run.metrics.micro is not None and row.numbers["accuracy/micro"] == run.metrics.micro.accuracy
    assert {"subject/Law", "supercategory/HUMSS", "letter/A", "questions"} <= set(row.numbers)
    assert row.settings["model"] == str(model) and row.settings["split"] == "test"
