"""Comparisons as rows for trackers, and the verbs that send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import found_in, loaded, predictions, run_directory

from kmmlu_fast import compare
from kmmlu_fast.machine import trackers
from kmmlu_fast.machine.trackers import TrackedResult
from kmmlu_fast.reporting.tracking import tracked_comparisons


def test_a_pairs_numbers() -> None:
    report = found_in([loaded("base", predictions(1)), loaded("lora", predictions(2, skill=1.4))])
    (pair, row) = report.pairs[0], tracked_comparisons(report)[0]
    assert row.numbers["difference/micro"] == pair.micro.difference
    assert row.numbers["only_second_right"] == pair.micro.c
    assert row.settings["outcome"] == pair.outcome
    assert sum(name.startswith("subject/") for name in row.numbers) == pair.subjects.height
    json.dumps(dict(row.numbers))


def test_compare_sends_every_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []

    def send(result: TrackedResult) -> str:
        sent.append(result)
        return "there"

    monkeypatch.setitem(trackers.SENDERS, "wandb", send)
    monkeypatch.setattr(trackers, "is_module_installed", lambda module: True)
    runs = [
        str(run_directory(tmp_path / name, name, predictions(seed, skill=seed)))
        for seed, name in enumerate(("base", "a", "b"), 1)
    ]
    assert compare.run_compare_command([*runs, "--format", "json", "--report-to", "wandb"]) == 0
    out, err = capsys.readouterr()
    assert [row.name for row in sent] == ["a against base", "b against base"]
    assert json.loads(out)["comparisons"] and "sent to wandb: there, there" in err
