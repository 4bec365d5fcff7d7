"""Searches under --minutes, by a clock that only work moves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_searches import FakeWorkers, SlowWorkers, make_config, make_dataset

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.improvement.search import run_search
from kmmlu_fast.improvement.workers import TrainedPiece
from kmmlu_fast.runs.run import Run

pytest.importorskip("optuna", reason="the extra [improve] is not installed")

FIRST = "learningrate0.0001-r4"  # in the file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("kmmlu"))


class FirstFails(SlowWorkers):
    """The first two recipes of the file fail to train, after as long as the others."""

    failing = (f"{FIRST}-s0", "learningrate0.0001-r8-s0")

    def _train_one(self, settings: dict[str, Any]) -> Path:
        name = Path(settings["output_dir"]).name
        if name in self.failing:
            self.log.append(f"fails {name}")
            raise TrainError("no memory")
        return super()._train_one(settings)


def test_minutes_are_kept_where_the_first_recipes_fail(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    result = run_search(make_config(tmp_path, data, minutes=9), FirstFails({}, log, monkeypatch))
    failed = [name for name, why in result.dropped.items() if why.kind == "failed"]
    assert failed == [name.removesuffix("-s0") for name in FirstFails.failing]
    assert [log.count(f"fails {name}") for name in FirstFails.failing] == [1, 1]  # not tried again
    trained = [entry for entry in log if entry.startswith("train ") and entry.endswith("0.5")]
    left_out = [name for name, why in result.dropped.items() if why.kind == "time" and why.rung == 0]
    assert len(trained) == 2 and len(left_out) == 2  # 4.5 minutes, of which the failed ones took two
    assert result.spent_sec <= 9 * 60


def test_a_single_rung_has_all_the_time_but_that_of_test(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    config = make_config(tmp_path, data, minutes=6, rungs=1, seeds=1)
    run_search(config, SlowWorkers({}, log, monkeypatch))
    assert sum(entry.startswith("train ") for entry in log) == 4  # 5.1 of 6 minutes; half would be two


class DiesInTraining(SlowWorkers):
    """Is killed in the first training, which leaves a checkpoint."""

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        for piece in pieces:
            checkpoint = Path(piece["output_dir"]) / "checkpoints" / "checkpoint-5"
            checkpoint.mkdir(parents=True)
            (checkpoint / "complete.json").write_text("{}")
            raise KeyboardInterrupt
        yield from ()


class FastRest(SlowWorkers):
    """What was begun takes three seconds more."""

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        for place, piece in enumerate(pieces):
            name = Path(piece["output_dir"]).name
            self.training_sec = 3.0 if name == f"{FIRST}-s0" else 60.0
            for done in super().train([piece]):
                yield replace(done, piece=place)


def test_the_rest_of_a_killed_training_is_not_what_one_costs(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, data, minutes=6)
    with pytest.raises(KeyboardInterrupt):
        run_search(config, DiesInTraining({}, [], monkeypatch))
    result = run_search(config, FastRest({}, [], monkeypatch))
    left_out = [name for name, why in result.dropped.items() if why.kind == "time" and why.rung == 0]
    assert len(left_out) == 3  # at three seconds each all of them would have fitted
    seconds = json.loads((tmp_path / "search" / "state.json").read_text())["seconds"]
    assert f"{FIRST}-s0-r0" not in seconds and set(seconds.values()) == {60.0}


class CountingWorkers(FakeWorkers):
    """Notes how many test questions are asked at most."""

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        if settings["split"] == "test":
            self.log.append(f"at most {settings.get('max_questions')}")
        return super().evaluate(settings)


def asked_at_most(folder: Path, data: Path, minutes: float | None) -> str:
    log: list[str] = []
    run_search(make_config(folder, data, minutes=minutes), CountingWorkers({}, log))
    return next(entry for entry in log if entry.startswith("at most"))


def test_a_confirmation_keeps_its_size(tmp_path: Path, data: Path) -> None:
    first = asked_at_most(tmp_path, data, 500)
    size = int(first.removeprefix("at most "))
    state = tmp_path / "search" / "state.json"
    values = json.loads(state.read_text())
    state.write_text(json.dumps({**values, "spent_sec": 500 * 60.0}))  # it was slow
    assert asked_at_most(tmp_path, data, 500) == first
    assert asked_at_most(tmp_path, data, 400) == first  # no less
    assert int(asked_at_most(tmp_path, data, 5000).removeprefix("at most ")) > size
    assert asked_at_most(tmp_path, data, None) == "at most None"
    assert asked_at_most(tmp_path, data, 1e-9) == "at most None"


class SlowWriting(SlowWorkers):
    """The model writes a row's reasoning in five seconds."""

    def draw_rows(self, settings: dict[str, Any], excluded: frozenset[str]) -> None:
        super().draw_rows(settings, excluded)
        self.clock += 5.0 * settings["size"]


def test_written_reasoning_has_its_cost(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One recipe's is written to know; the other's would take as long again, which is not there."""
    recipes = """
common: {effective_batch: 8, num_train_epochs: 1}
recipes:
  - {name: plain, size: 16}
  - {name: reasons, size: 24, rationale: self}
  - {name: others, size: 25, rationale: self}
"""
    log: list[str] = []
    config = make_config(tmp_path, data, recipes, minutes=12)
    result = run_search(config, SlowWriting({}, log, monkeypatch))
    assert result.spent_sec <= 12 * 60
    assert [name for name, why in result.dropped.items() if why.kind == "time"][:1] == ["others"]
    assert log.count("draw") == 1 and result.rungs[0].recipes.keys() == {"plain", "reasons"}
