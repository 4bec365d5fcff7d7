"""Killed, stopped and out of disk at file-system events of every verb that writes: nothing half-finished
looks whole, and the same command
then gives what it gives uninterrupted. A sample of the events in CI; all of them by ``python -m
bench.faults``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from bench.faults.killing import LEAN, Job, Watcher
from bench.faults.kills import (
    Known,
    Place,
    Scenario,
    Stop,
    disturb,
    points,
    scenarios,
    uninterrupted,
)

WITHOUT_ENGINE = (
    *("eval", "eval --overwrite", "chain of thought", "sample", "report", "compare", "merge"),
    *("leakage", "export", "check", "push"),
)


class Stage:
    """The scenarios, a watcher that has everything imported, and what each command leaves undisturbed."""

    def __init__(self, root: Path) -> None:
        model = make_tiny_model(root / "model", chat=True)
        self.place = Place(root, model, make_tiny_adapter(model, root / "lora", scale=20.0))
        self.watcher = self.place.watcher = Watcher(*LEAN, "transformers", "torch")
        self.scenarios = {scenario.name: scenario for scenario in scenarios(self.place)}
        self._known: dict[str, Known] = {}

    def known(self, name: str) -> tuple[Scenario, Any, int]:
        if name not in self._known:
            self._known[name] = uninterrupted(self.scenarios[name], self.place, self.watcher)
        return self.scenarios[name], self._known[name].outcome, self._known[name].events

    def problem(self, name: str, *stops: Stop) -> str | None:
        scenario, wanted, _ = self.known(name)
        return disturb(scenario, self.place, self.watcher, wanted, *stops).problem


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("kills"))
    with made.watcher:
        yield made


@pytest.mark.parametrize("name", WITHOUT_ENGINE)
def test_a_kill_at_any_event_loses_and_fakes_nothing(stage: Stage, name: str) -> None:
    events = stage.known(name)[2]
    assert events >= 5
    chosen = points(events, {"eval": 6, "eval --overwrite": 6, "sample": 4, "report": 2}.get(name, 3))
    problems = [problem for at in chosen if (problem := stage.problem(name, Stop(at)))]
    assert not problems


@pytest.mark.parametrize("name", ["eval", "sample", "merge"])
def test_a_kill_at_any_time_and_another_of_the_next_try(stage: Stage, name: str) -> None:
    """At times, libraries that write past Python's audit hooks are met too."""
    scenario, wanted, events = stage.known(name)
    seconds = uninterrupted(scenario, stage.place, stage.watcher).seconds
    stopped = 0
    for share in (0.6, 0.3, 0.1):  # a command faster than the measured one ends before its time
        stops = (Stop(after_sec=share * seconds), Stop(events // 2))
        done = disturb(scenario, stage.place, stage.watcher, wanted, *stops)
        assert done.problem is None
        stopped = max(stopped, done.stopped)
    assert stopped >= 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_schedulers_signals_flush_what_was_answered_and_end_with_one_line(stage: Stage, how: int) -> None:
    scenario, _, events = stage.known("eval")
    at = events // 2
    assert stage.problem("eval", Stop(at, how)) is None
    folder = stage.place.root / "signalled"
    folder.mkdir(exist_ok=True)
    job = Job(
        "eval",
        [*scenario.argv, "--output-dir", f"runs-{int(how)}"],
        str(folder),
        stop_at=14,
        stop_with=how,
        flush_rows=5,
    )
    job.environment = stage.place.environment
    ended = stage.watcher.run(job)
    assert ended.code == 128 + how
    assert ended.err.splitlines()[-1].startswith(
        f"stopped by {signal.Signals(how).name}: what was answered is kept"
    )
    parts = list((folder / f"runs-{int(how)}").glob("*/predictions/part-*.parquet"))
    assert parts and not list((folder / f"runs-{int(how)}").rglob("*.partial"))


@pytest.mark.parametrize(
    ("name", "limit"),
    [("eval", 4_000), ("eval", 9_000), ("sample", 3_000), ("compare", 5_000), ("merge", 50_000)],
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(stage: Stage, name: str, limit: int) -> None:
    assert stage.problem(name, Stop(max_file_bytes=limit)) is None


def test_the_line_of_a_full_disk_names_the_file(stage: Stage, tmp_path: Path) -> None:
    scenario, _, _ = stage.known("sample")
    ended = stage.watcher.run(
        Job("sample", scenario.argv, str(tmp_path), max_file_bytes=3_000, environment=stage.place.environment)
    )
    assert ended.code == 2 and "no space left to write to" in ended.err and "sft." in ended.err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.engine
@pytest.mark.alone
def test_a_killed_training_keeps_the_best_adapter_and_names_it(stage: Stage, tmp_path: Path) -> None:
    """Real Unsloth on a tiny model."""
    from kmmlu_fast.data import alpaca, dataset
    from kmmlu_fast.data.subjects import find_subjects

    questions = dataset.load_questions(
        "sample", "train", find_subjects(["Math", "Law", "Biology", "Chemistry", "Economics", "Health"])
    )
    alpaca.write_sft_rows(
        tmp_path / "rows.jsonl",
        [alpaca.SftRow(question=question, strategy="uniform") for question in questions],
    )
    place = Place(tmp_path, stage.place.model, None, tmp_path / "rows.jsonl")
    (scenario,) = [one for one in scenarios(place) if one.name == "training"]
    with Watcher("unsloth", "kmmlu_fast.train") as watcher:
        wanted, events, seconds = uninterrupted(scenario, place, watcher)
        stops = [*map(Stop, points(events, 3)), Stop(after_sec=seconds / 2)]
        done = [disturb(scenario, place, watcher, wanted, stop) for stop in stops]
    assert not [one.problem for one in done if one.problem] and sum(one.stopped for one in done) >= 3
