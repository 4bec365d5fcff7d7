"""Searches without models: choices, kills, and that test answers decide nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_searches import RECIPES, FakeWorkers, SlowWorkers, make_config, make_dataset

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError, EngineError, TrainError
from kmmlu_fast.data import dataset
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.search import SearchResult, run_search
from kmmlu_fast.improvement.search_report import search_page, write_search_report
from kmmlu_fast.improvement.summary import summary_lines
from kmmlu_fast.runs.run import Run
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


def test_a_refused_command_takes_no_directory(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="none is left to train on"):
        search(tmp_path, data, selection=8, weakness=4)
    with pytest.raises(ConfigError, match="--fewshot-rival 5: "):
        search(tmp_path, make_dataset(tmp_path / "few", dev=2), fewshot_rival=5)
    assert not (tmp_path / "search").exists()


def test_a_first_command_that_fails_takes_no_directory(tmp_path: Path, data: Path) -> None:
    """A model that is mistyped, for one: the corrected command begins anew."""

    class NoModel(FakeWorkers):
        def evaluate(self, settings: dict[str, Any]) -> list[Run]:
            raise EngineError("no such model")

    with pytest.raises(EngineError, match="no such model"):
        run_search(make_config(tmp_path, data, model="demmo"), NoModel({}, []))
    assert search(tmp_path, data)[0].winner


def test_the_shortest_command_for_the_packaged_sample_finds_its_sizes(tmp_path: Path) -> None:
    words = (
        f"--model demo --dataset sample --recipes configs/recipes/quick.yaml --output-dir {tmp_path / 'out'}"
    )
    config = parse_config(ImproveConfig, words.split(), "improve")
    assert isinstance(config, ImproveConfig)
    result = run_search(config, FakeWorkers({}, []))
    assert len(next(iter(result.rungs[0].base.values()))) == 90 and result.winner


def test_minutes_leave_recipes_out_and_say_so(tmp_path: Path, data: Path) -> None:
    result, log = search(tmp_path, data, minutes=1e-9)
    assert sum(entry.endswith("0.5") for entry in log) == 1  # one trained in the first rung
    assert sum(why.kind == "time" for why in result.dropped.values()) == 5


def test_where_the_time_ends_the_better_recipes_go_on(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that the first rung left, not the first in the file."""
    skill = {"learningrate0.0002-r8": 0.42, "learningrate0.0002-r4": 0.38, "learningrate0.0001-r4": 0.36}
    made = make_config(tmp_path, data, minutes=12, keep=1.0)
    result = run_search(made, SlowWorkers(skill, [], monkeypatch))
    assert result.winner.name == "learningrate0.0002-r8"
    later = {name for name, why in result.dropped.items() if why.kind == "time" and why.rung == 1}
    scored = [recipe for recipe in result.recipes if recipe.name in result.rungs[0].recipes]
    gains = {recipe.name: result.rungs[0].gain(recipe) for recipe in scored}
    went_on = result.rungs[1].recipes.keys()
    assert later and min(gains[name] for name in went_on) >= max(gains[name] for name in later)
    assert result.spent_sec <= 12 * 60 + 3 * 60  # a recipe's own time more, at most


def test_a_search_goes_on_without_minutes_and_with_others(tmp_path: Path, data: Path) -> None:
    """What was left out for time is left out for good only once its rung is scored."""
    log: list[str] = []
    dying = FakeWorkers(SKILL, log)
    dying.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        run_search(make_config(tmp_path, data, minutes=1e-9), dying)
    result = run_search(make_config(tmp_path, data), FakeWorkers(SKILL, log))
    assert not any(why.kind == "time" for why in result.dropped.values())
    assert sum(entry.endswith("0.5") for entry in log) == 6
    again = run_search(make_config(tmp_path, data, minutes=500.0), FakeWorkers(SKILL, log))
    assert again.winner == result.winner and again.dropped == result.dropped


def test_a_file_in_another_order_is_the_same_search(finished, data: Path, tmp_path: Path) -> None:
    first, _, folder = finished
    turned = RECIPES.replace("[1.0e-4, 2.0e-4]", "[2.0e-4, 1.0e-4]").replace("[4, 8, 16]", "[16, 4, 8]")
    config = make_config(tmp_path, data, turned, output_dir=folder / "search")
    log: list[str] = []
    again = run_search(config, FakeWorkers(SKILL, log))
    assert again.winner == first.winner and again.dropped == first.dropped
    assert [recipe.name for recipe in again.recipes] == [recipe.name for recipe in first.recipes]
    assert not [entry for entry in log if entry.startswith("train ")]


class BrokenWorkers(FakeWorkers):
    """``untrained`` fails to train, ``unread`` is refused by the engine."""

    untrained = "learningrate0.0001-r8-s0"
    unread = "learningrate0.0002-r16-s0"

    def _train_one(self, settings: dict[str, Any]) -> Path:
        if Path(settings["output_dir"]).name == self.untrained:
            raise TrainError("the loss became NaN at step 3")
        return super()._train_one(settings)

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        if any(spec.startswith(f"{self.unread}=") for spec in settings.get("adapter", [])):
            raise EngineError("changes nothing on 16 probes")
        return super().evaluate(settings)


def test_a_recipe_that_fails_is_dropped_and_the_others_go_on(tmp_path: Path, data: Path) -> None:
    log: list[str] = []
    result = run_search(make_config(tmp_path, data), BrokenWorkers(SKILL, log))
    reasons = {name: why.reason for name, why in result.dropped.items() if why.kind == "failed"}
    assert reasons == {
        "learningrate0.0001-r8": "failed: the loss became NaN at step 3",
        "learningrate0.0002-r16": "failed: changes nothing on 16 probes",
    }
    assert result.winner.name == "learningrate0.0002-r8"
    again = run_search(make_config(tmp_path, data), BrokenWorkers(SKILL, log))
    assert again.dropped == result.dropped and again.winner == result.winner


def test_a_search_in_which_everything_fails_says_why(tmp_path: Path, data: Path) -> None:
    class Hopeless(FakeWorkers):
        def _train_one(self, settings: dict[str, Any]) -> Path:
            raise TrainError("unsloth is not installed")

    with pytest.raises(TrainError, match="unsloth is not installed"):
        run_search(make_config(tmp_path, data), Hopeless(SKILL, []))
    assert run_search(make_config(tmp_path, data), FakeWorkers(SKILL, [])).winner  # mended, it goes on


def answering_d(run: Run) -> Run:
    return replace(run, predictions=run.frame.with_columns(prediction=pl.lit("D")))


def test_an_adapter_that_answers_one_letter_does_not_win(tmp_path: Path, data: Path) -> None:
    """However many answers that letter gets right."""

    class OneLetter(FakeWorkers):
        fallen = "learningrate0.0002-r8"

        def evaluate(self, settings: dict[str, Any]) -> list[Run]:
            runs = super().evaluate(settings)
            return [answering_d(run) if run.name.startswith(self.fallen) else run for run in runs]

    result = run_search(make_config(tmp_path, data), OneLetter(SKILL, []))
    fallen = result.dropped["learningrate0.0002-r8"]
    assert fallen.kind == "collapsed"
    assert fallen.reason.startswith("collapsed: answers D to 100% of the questions (the base:")
    assert result.winner.name != "learningrate0.0002-r8"

    class AllOneLetter(OneLetter):
        fallen = "learningrate"

    made = make_config(tmp_path / "all", data)
    lines = summary_lines(made, run_search(made, AllOneLetter(SKILL, [])))
    said = [line for line in lines if line.startswith("CAUTION: ")]
    assert len(said) == 2 and all("answers D to 100% of the questions" in line for line in said)


def test_rows_of_ones_own_are_a_recipe_unless_they_hold_selection_questions(
    finished, tmp_path: Path, data: Path
) -> None:
    """A teacher's reasoning, say; with the questions that recipes are chosen on, it would win by them."""
    _, _, folder = finished
    asked = load_run_directory(folder / "search" / "runs" / "base-train-0").frame["question_id"]
    chosen = frozenset(asked)
    rows: dict[bool, list[str]] = {True: [], False: []}
    for question in dataset.load_questions(str(data), "train"):
        row = {"instruction": question.question, "input": "", "output": f"reason {question.answer}"}
        rows[question.question_id in chosen].append(json.dumps(row, ensure_ascii=False))
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(rows[False][:20]), encoding="utf-8")
    recipes = f"recipes: [{{name: reasons, data: {own}}}, {{name: drawn, size: 16}}]"
    result = run_search(make_config(tmp_path, data, recipes), FakeWorkers({"reasons": 0.9}, []))
    assert result.winner.name == "reasons" and result.rows == own
    own.write_text("\n".join(rows[False][1:21]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"differing in .*data_sha256"):
        run_search(make_config(tmp_path, data, recipes), FakeWorkers({}, []))
    own.write_text("\n".join([*rows[False][:20], rows[True][0]]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"recipe reasons: .* 1 of its 21 rows overlap .* row 21; remove"):
        run_search(make_config(tmp_path / "leaked", data, recipes), FakeWorkers({}, []))


def test_summary_and_page_say_what_was_found(finished) -> None:
    result, _, folder = finished
    config = make_config(folder, folder)
    lines = "\n".join(summary_lines(config, result))
    assert "winner" in lines and "270 test questions" in lines
    assert "too few recipes (6, for 3 changed values)" in lines
    assert "--learning-rate 0.0002" in lines and "--lr-scheduler-type warmup_stable_decay" in lines
    page = write_search_report(config, result)
    assert "<svg" in page.read_text(encoding="utf-8") and "<script" not in search_page(config, result)
    assert json.loads((folder / "search" / "result.json").read_text())["winner"] == result.winner.name
