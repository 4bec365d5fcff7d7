"""A search's directory: whose it is, and how long the search took although it was killed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from made_searches import make_config

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.improvement.recipes import read_recipes
from kmmlu_fast.improvement.search_state import IDENTITY, STATE, SearchState

OTHER_RECIPES = "grid: {learning_rate: [1.0e-4, 2.0e-4]}"


def open_state(folder: Path, *recipes: str, **settings: Any) -> SearchState:
    config = make_config(folder, folder / "data", *recipes, **settings)
    state = SearchState(config, read_recipes(config.recipes))
    state.lock.close()
    return state


def test_a_directory_in_which_nothing_is_trained_is_no_other_searchs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_state(tmp_path)
    first.add_pace("base/lm-eval/0", 10, 5.0)
    for name in ("rows", "weakness", "adapters", "runs"):
        (first.folder / name).mkdir()
    (first.folder / "journal.log").write_text("{}\n")
    with caplog.at_level("INFO", "kmmlu_fast"):
        second = open_state(tmp_path, OTHER_RECIPES, selection=3)
    assert "begins anew" in caplog.text and "selection (4 there, 3 here)" in caplog.text
    assert {path.name for path in second.folder.iterdir() if path.name[0] != "."} == {IDENTITY, STATE, "runs"}
    assert second.read_pace("base/lm-eval/0") == 0.0
    open_state(tmp_path, OTHER_RECIPES, selection=3).add_pace("drawing", 10, 600.0)
    with pytest.raises(ConfigError, match="holds another search, differing in selection"):
        open_state(tmp_path)  # reasoning that took long is there


@pytest.mark.parametrize(
    "work", ["adapters/a-s0/checkpoints/checkpoint-4/complete.json", "adapters/a-s0/adapter_card.json"]
)
def test_work_that_is_not_recorded_yet_is_not_thrown_away(tmp_path: Path, work: str) -> None:
    from kmmlu_fast.models.adapters import ADAPTER_CARD

    state = open_state(tmp_path)
    file = state.folder / work.replace("adapter_card.json", ADAPTER_CARD)
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="holds another search, differing in keep"):
        open_state(tmp_path, keep=0.9)
    assert file.exists() and open_state(tmp_path).spent_sec >= 0


def test_the_same_search_goes_on_in_another_cluster(tmp_path: Path) -> None:
    open_state(tmp_path, ray_address="10.0.0.1:6379", num_replicas=2).add_trained(
        "a-s0-r0", tmp_path.absolute() / "search" / "adapters" / "a", 5.0
    )
    for settings in ({"ray_address": "10.0.0.2:7000"}, {"engine": "vllm"}, {"engine": "ray"}):
        assert open_state(tmp_path, **settings).training_seconds == {"a-s0-r0": 5.0}
    with pytest.raises(ConfigError, match="differing in engine"):
        open_state(tmp_path, engine="transformers")


def test_a_search_that_recorded_where_it_computed_is_still_the_same(tmp_path: Path) -> None:
    state = open_state(tmp_path)
    state.add_trained("a-s0-r0", state.folder / "adapters" / "a", 5.0)
    stored = json.loads((state.folder / IDENTITY).read_text())
    stored["settings"] |= {"engine": "ray", "ray_address": "10.0.0.1:6379", "gpus_per_replica": 2}
    (state.folder / IDENTITY).write_text(json.dumps(stored))
    assert open_state(tmp_path).training_seconds == {"a-s0-r0": 5.0}


def test_a_relative_directory_is_meant_from_here_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = open_state(tmp_path, output_dir=Path("out"))
    assert state.folder == Path.cwd() / "out"


def killed_at(tmp_path: Path, *, copied: bool = False) -> SearchState:
    """A search whose last note is 1,000 s old, and which trained for 600 s more."""
    state, now = open_state(tmp_path), time.time()
    log = state.folder / "adapters" / "a-s0" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.touch()
    for path in (log, log.parent, log.parent.parent):
        os.utime(path, (now - 400, now - 400))
    values = {**json.loads((state.folder / STATE).read_text()), "noted": now - 1000, "spent_sec": 50.0}
    (state.folder / STATE).write_text(json.dumps(values))
    if not copied:
        os.utime(state.folder / IDENTITY, (now - 2000, now - 2000))
    return open_state(tmp_path)


def test_time_before_a_kill_counts_to_the_last_sign_of_life(tmp_path: Path) -> None:
    state = killed_at(tmp_path)
    assert 649 <= state.spent_sec <= 660
    assert open_state(tmp_path).spent_sec <= 665  # once


def test_a_copied_directory_has_no_signs_of_life(tmp_path: Path) -> None:
    assert 50 <= killed_at(tmp_path, copied=True).spent_sec <= 60


def test_the_rest_of_a_training_is_no_measure(tmp_path: Path) -> None:
    state = open_state(tmp_path)
    state.add_trained("a-s0-r0", state.folder / "adapters" / "a", None)
    state.add_trained("b-s0-r0", state.folder / "adapters" / "b", 60.0)
    again = open_state(tmp_path)
    assert again.trained_path("a-s0-r0") and again.training_seconds == {"b-s0-r0": 60.0}
