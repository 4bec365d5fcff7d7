"""Searches without models: choices, kills, and that test answers decide nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_searches import FakeWorkers, make_config, make_dataset

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data import dataset
from kmmlu_fast.improvement.search import SearchResult, run_search
from kmmlu_fast.improvement.search_report import search_page, write_search_report
from kmmlu_fast.improvement.summary import summary_lines
from kmmlu_fast.runs.store import load_run_directory

pytest.importorskip("optuna", reason="the extra [improve] is not installed")

SKILL = {"learningrate0.0002-r8": 0.42, "learningrate0.0001-r4": 0.05}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("kmmlu"))


def search(folder: Path, data: Path, **settings) -> tuple[SearchResult, list[str]]:
    log: list[str] = []
    return run_search(make_config(folder, data, **settings), FakeWorkers(SKILL, log)), log


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[SearchResult, list[str], Path]:
    folder = tmp_path_factory.mktemp("search")
    result, log = search(folder, data)
    return result, log, folder


def test_the_better_recipe_wins_and_half_go_on(finished) -> None:
    result, log, folder = finished
    assert result.winner.name == "learningrate0.0002-r8"
    went_on = len(result.rungs[1].recipes)
    assert len(result.rungs[0].recipes) == 6 and 1 <= went_on <= 3
    assert result.dropped["learningrate0.0001-r4"].kind == "worse"
    assert log.count("evaluate train 6") == (2 if went_on == 3 else 1)  # scored together
    assert sum(entry.startswith("train ") for entry in log) == 6 + 2 * went_on
    assert [entry for entry in log if entry.startswith("evaluate test")] == ["evaluate test 2"]
    kept = {path.name for path in (folder / "search" / "adapters").iterdir()}
    assert kept == {"learningrate0.0002-r8-s0", "learningrate0.0002-r8-s1"}


def test_no_selection_or_weakness_question_is_trained_on(finished, data: Path) -> None:
    result, _, folder = finished
    rows = [json.loads(line) for line in result.rows.read_text(encoding="utf-8").splitlines()]
    run = load_run_directory(folder / "search" / "runs" / "base-train-0")
    questions = {question.question_id: question for question in dataset.load_questions(str(data), "train")}
    asked = {questions[name].question for name in run.frame["question_id"]}
    assert len(rows) == 16 and not any(text in str(row) for row in rows for text in asked)


def test_shuffled_test_labels_leave_every_choice_as_it_is(finished, tmp_path: Path) -> None:
    first, _, _ = finished
    other, _ = search(tmp_path, make_dataset(tmp_path / "kmmlu", test_seed=99))
    assert other.winner == first.winner and other.dropped == first.dropped
    for one, two in zip(first.rungs, other.rungs, strict=True):
        assert one.recipes.keys() == two.recipes.keys()
        for name, seeds in one.recipes.items():
            assert all(np.array_equal(a, b) for a, b in zip(seeds, two.recipes[name], strict=True))
    assert other.rows.read_bytes() == first.rows.read_bytes()


@pytest.mark.parametrize("pieces", [0, 1, 4, 7, 8, 10, 11, 12])
def test_a_killed_search_continues_to_the_same_winner(
    finished, tmp_path: Path, data: Path, pieces: int
) -> None:
    first, whole, _ = finished
    config, log = make_config(tmp_path, data), []
    dying = FakeWorkers(SKILL, log)
    dying.fail_at = pieces
    with pytest.raises(KeyboardInterrupt):
        run_search(config, dying)
    again = run_search(config, FakeWorkers(SKILL, log))
    assert again.winner == first.winner and again.dropped == first.dropped
    trained = [entry for entry in log if entry.startswith("train ")]
    assert sorted(trained) == sorted(entry for entry in whole if entry.startswith("train "))
    assert again.confirmation.gains == first.confirmation.gains


def test_a_finished_search_is_read_again_without_training(finished, data: Path) -> None:
    first, _, folder = finished
    again, log = search(folder, data)
    assert again.winner == first.winner and not [entry for entry in log if entry.startswith("train ")]


def test_the_journal_holds_one_trial_per_recipe(finished) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    result, _, folder = finished
    storage = JournalStorage(JournalFileBackend(str(folder / "search" / "journal.log")))
    trials = optuna.load_study(study_name="recipes", storage=storage).trials
    assert len(trials) == 6
    states = {trial.params["recipe"]: trial.state.name for trial in trials}
    assert states[result.winner.name] == "COMPLETE" and states["learningrate0.0001-r4"] == "PRUNED"


def test_another_search_in_the_same_directory_is_refused(finished, data: Path) -> None:
    _, _, folder = finished
    with pytest.raises(ConfigError, match=r"holds another search, differing in keep"):
        search(folder, data, keep=0.9)


def test_a_foreign_directory_is_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no search"):
        search(tmp_path, data)


def test_slices_that_leave_nothing_are_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="none is left to train on"):
        search(tmp_path, data, selection=8, weakness=4)


def test_minutes_leave_recipes_out_and_say_so(tmp_path: Path, data: Path) -> None:
    result, log = search(tmp_path, data, minutes=1e-9)
    assert sum(entry.endswith("0.5") for entry in log) == 1  # one trained in the first rung
    assert sum(why.kind == "time" for why in result.dropped.values()) == 5


def test_summary_and_page_say_what_was_found(finished) -> None:
    result, _, folder = finished
    config = make_config(folder, folder)
    lines = "\n".join(summary_lines(config, result))
    assert "winner" in lines and "270 test questions" in lines
    assert "too few recipes (6, with 3 settings that vary)" in lines
    assert "--learning-rate 0.0002" in lines and "--lr-scheduler-type warmup_stable_decay" in lines
    page = write_search_report(config, result)
    assert "<svg" in page.read_text(encoding="utf-8") and "<script" not in search_page(config, result)
    assert json.loads((folder / "search" / "result.json").read_text())["winner"] == result.winner.name
