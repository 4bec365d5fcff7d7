"""The journal survives kills at any byte, and what it does not survive is put aside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.trials import JOURNAL, RecipeTrials

optuna = pytest.importorskip("optuna", reason="the extra [improve] is not installed")

RECIPES = [Recipe(name, {"r": place}) for place, name in enumerate(("a", "b", "c"), 4)]


@pytest.fixture(autouse=True)
def no_waiting_for_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna waits for a lock that is there, for ever if its link leads nowhere."""
    lock = optuna.storages.journal.JournalFileSymlinkLock
    acquire = lock.acquire

    def acquire_at_once(self: Any) -> bool:
        assert not os.path.lexists(self._lock_file), "would wait for a lock"
        return bool(acquire(self))

    monkeypatch.setattr(lock, "acquire", acquire_at_once)


def load_trials(folder: Path) -> list[Any]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.load_study(study_name="recipes", storage=optuna.storages.JournalStorage(backend))
    return list(study.trials)


def by_recipe(folder: Path) -> dict[str, Any]:
    return {trial.params["recipe"]: trial for trial in load_trials(folder) if trial.params}


def test_the_lock_is_reached_from_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    trials = RecipeTrials(Path("out"), RECIPES, {})
    assert Path(trials._study._storage._backend._lock._lock_target_file).is_absolute()
    assert by_recipe(Path("out")).keys() == {"a", "b", "c"}


def test_a_kill_in_an_append_costs_at_most_its_entry(tmp_path: Path) -> None:
    RecipeTrials(tmp_path, RECIPES, {}).report_rung(0, {"a": 0.1})
    journal = tmp_path / JOURNAL
    (tmp_path / f"{JOURNAL}.lock").symlink_to(JOURNAL)  # leads nowhere from another directory
    with journal.open("ab") as file:
        file.write(b'{"op_code":7,"worker_id":"x","trial')
    for _ in range(2):  # Optuna reads over a last line that is half, until another follows
        trials = RecipeTrials(tmp_path, RECIPES, {})
        trials.report_rung(0, {"a": 0.1, "b": 0.2})
    trials.tell_finished({"b": 0.2})
    found = by_recipe(tmp_path)
    assert found["a"].intermediate_values == {0: 0.1} and found["b"].value == 0.2
    assert len(load_trials(tmp_path)) == 3 and not list(tmp_path.glob("*.damaged*"))


@pytest.mark.parametrize("cut", range(5))
def test_a_journal_cut_at_any_entry_gives_each_trial_its_own_recipe(tmp_path: Path, cut: int) -> None:
    RecipeTrials(tmp_path, RECIPES, {})
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join(lines[:cut]))
    RecipeTrials(tmp_path, RECIPES, {})
    found = by_recipe(tmp_path)
    assert {name: trial.user_attrs["r"] for name, trial in found.items()} == {"a": 4, "b": 5, "c": 6}
    assert len(load_trials(tmp_path)) == 3


def test_a_trial_that_waits_in_an_older_journal_shifts_no_other(tmp_path: Path) -> None:
    """It was added in several entries, and killed between them."""
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    )
    study = optuna.create_study(storage=storage, study_name="recipes", direction="maximize")
    study.enqueue_trial({"recipe": "a"})
    study.ask()
    study.enqueue_trial({"recipe": "a"})
    RecipeTrials(tmp_path, RECIPES, {})
    found = by_recipe(tmp_path)
    assert {name: trial.user_attrs["r"] for name, trial in found.items()} == {"a": 4, "b": 5, "c": 6}
    left = [trial for trial in load_trials(tmp_path) if not trial.params]
    assert [trial.state.name for trial in left] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    "entry", [b"\0\0\0\n", b"[]\n", b'{"op_code": 6}\n', b'{"op_code": 4, "trial_id": 77}\n']
)
def test_a_damaged_journal_is_put_aside(tmp_path: Path, entry: bytes) -> None:
    RecipeTrials(tmp_path, RECIPES, {})
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    damaged = b"".join([lines[0], entry, *lines[1:]])
    for number in range(2):
        (tmp_path / JOURNAL).write_bytes(damaged)
        RecipeTrials(tmp_path, RECIPES, {}).report_rung(0, {"a": 0.1})
        aside = f"{JOURNAL}.damaged" + ("" if number == 0 else "-2")
        assert (tmp_path / aside).read_bytes().startswith(lines[0] + entry)
    assert by_recipe(tmp_path).keys() == {"a", "b", "c"}
