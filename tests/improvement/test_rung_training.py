"""What a recipe's own fault is, what it leaves on the disk, and how reasoning is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_searches import FakeWorkers, make_config, make_dataset

from kmmlu_fast.core.errors import EngineError, TrainError
from kmmlu_fast.improvement.search import run_search
from kmmlu_fast.improvement.workers import LostWorkError, TrainedPiece

pytest.importorskip("optuna", reason="the extra [improve] is not installed")

RECIPES = """
common: {effective_batch: 8, num_train_epochs: 1}
recipes:
  - {name: reasons, size: 16, rationale: self}
  - {name: again, size: 16, rationale: self, r: 4}
  - {name: plain, size: 16}
  - {name: large, size: 24}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("kmmlu"))


class Unwritten(FakeWorkers):
    """The engine cannot write reasoning."""

    error: Exception = EngineError("the model states no key")

    def draw_rows(self, settings: dict[str, Any], excluded: frozenset[str]) -> None:
        self.log.append("draw")
        raise self.error


def test_reasoning_that_cannot_be_written_is_its_recipes_fault(tmp_path: Path, data: Path) -> None:
    log: list[str] = []
    result = run_search(make_config(tmp_path, data, RECIPES), Unwritten({}, log))
    failed = {name: why.reason for name, why in result.dropped.items() if why.kind == "failed"}
    assert failed == dict.fromkeys(("reasons", "again"), "failed: the model states no key")
    assert log.count("draw") == 1 and result.rungs[0].recipes.keys() == {"plain", "large"}


def test_reasoning_is_written_once_after_the_plain_recipes_and_of_no_question_that_was_asked(
    tmp_path: Path, data: Path
) -> None:
    class Watching(FakeWorkers):
        def draw_rows(self, settings: dict[str, Any], excluded: frozenset[str]) -> None:
            assert len(excluded) == 45 * 6 and settings["rationale"] == "self"
            super().draw_rows(settings, excluded)

    log: list[str] = []
    run_search(make_config(tmp_path, data, RECIPES), Watching({}, log))
    first = [entry for entry in log if entry == "draw" or entry.endswith(" 0.5")]
    assert first == [
        "train plain-s0 0.5",
        "train large-s0 0.5",
        "draw",
        "train reasons-s0 0.5",
        "train again-s0 0.5",
    ]


def test_a_lost_process_ends_the_command_and_drops_nothing(tmp_path: Path, data: Path) -> None:
    class Lost(FakeWorkers):
        def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
            for done in super().train(pieces):
                yield done
                raise LostWorkError("train was ended by SIGTERM: the same command continues")

    log: list[str] = []
    config = make_config(tmp_path, data, RECIPES)
    for work in (Lost({}, log), Unwritten({}, log)):
        if isinstance(work, Unwritten):
            work.error = LostWorkError("row_drawing was ended by SIGTERM: the same command continues")
        with pytest.raises(LostWorkError, match="SIGTERM"):
            run_search(config, work)
    result = run_search(config, FakeWorkers({}, log))
    assert not any(why.kind == "failed" for why in result.dropped.values())
    assert log.count("train plain-s0 0.5") == 1


def test_a_lost_evaluation_ends_the_command(tmp_path: Path, data: Path) -> None:
    class Lost(FakeWorkers):
        def evaluate(self, settings: dict[str, Any]) -> Any:
            if settings.get("adapter"):
                self.log.append("lost")
                raise LostWorkError("eval was ended by SIGTERM: the same command continues")
            return super().evaluate(settings)

    log: list[str] = []
    config = make_config(tmp_path, data)
    with pytest.raises(LostWorkError):
        run_search(config, Lost({}, log))
    assert log.count("lost") == 1  # the adapters are not asked alone
    assert not any(why.kind == "failed" for why in run_search(config, FakeWorkers({}, log)).dropped.values())


def test_what_failed_or_was_left_out_leaves_nothing_on_the_disk(tmp_path: Path, data: Path) -> None:
    class Failing(FakeWorkers):
        def _train_one(self, settings: dict[str, Any]) -> Path:
            folder = super()._train_one(settings)
            if folder.name.startswith("plain"):
                raise TrainError("the loss became NaN at step 3")
            return folder

    config = make_config(tmp_path, data, RECIPES)
    result = run_search(config, Failing({}, []))
    assert result.dropped["plain"].kind == "failed"
    kept = {path.name.rpartition("-s")[0] for path in (tmp_path / "search" / "adapters").iterdir()}
    assert kept == {result.winner.name}


def test_what_was_left_out_in_a_later_rung_leaves_nothing_on_the_disk(tmp_path: Path, data: Path) -> None:
    config = make_config(tmp_path, data, RECIPES, keep=1.0)
    dying = FakeWorkers({}, [])
    dying.fail_at = 7  # base, rows, four trainings and their scores
    with pytest.raises(KeyboardInterrupt):
        run_search(config, dying)
    result = run_search(make_config(tmp_path, data, RECIPES, keep=1.0, minutes=1e-9), FakeWorkers({}, []))
    assert any(why.kind == "time" and why.rung == 1 for why in result.dropped.values())
    kept = {path.name.rpartition("-s")[0] for path in (tmp_path / "search" / "adapters").iterdir()}
    assert kept == {result.winner.name}
