"""What the winner is compared with, chosen before anything is trained."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import early_cases
import polars as pl
import pytest
from early_cases import GAIN, SIZES, Skilled
from made_searches import FakeWorkers, make_config, make_dataset
from tiny import make_tiny_adapter

from kmmlu_fast.analysis.exact_band import ChangeInterval, exact_change_interval
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.early_stopping import passes
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import choose_rival_examples, confirm_winner
from kmmlu_fast.improvement.search import run_search
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory


class NoWorkers:
    """Nothing may be asked or trained."""

    def evaluate(self, settings: dict[str, Any]) -> Any:
        raise AssertionError

    def train(self, pieces: Any) -> Any:
        raise AssertionError

    def draw_rows(self, settings: Any, excluded: Any) -> Any:
        raise AssertionError

    def count_slots(self) -> int:
        return 1


def config_of(folder: Path, **settings: Any) -> Any:
    return make_config(folder, Path("sample"), selection=2, weakness=1, **settings)


def test_the_packaged_sample_has_two_examples_of_each_subject(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = config_of(tmp_path).model_dump(include={"recipes", "output_dir", "dataset", "model"})
    default = build_config(ImproveConfig, **values, selection=2, weakness=1)
    caplog.set_level("INFO", logger="kmmlu_fast")
    assert choose_rival_examples(default) == 2
    assert "has 2 dev questions" in caplog.text


@pytest.mark.parametrize(("given", "examples"), [(0, 0), (1, 1), (2, 2)])
def test_what_is_given_is_taken(tmp_path: Path, given: int, examples: int) -> None:
    assert choose_rival_examples(config_of(tmp_path, fewshot_rival=given)) == examples


def test_more_examples_than_there_are_end_the_search_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--fewshot-rival 5: .* has 2 dev questions of .*; give at most 2"):
        run_search(config_of(tmp_path, fewshot_rival=5), NoWorkers())


def test_the_subjects_that_count_are_those_of_test(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "kmmlu") / "data"
    (data / "Law-train.csv").unlink()
    path = data / "Law-dev.csv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    with pytest.raises(ConfigError, match="has 1 dev question of Law; give at most 1, or 0"):
        choose_rival_examples(make_config(tmp_path, data.parent, fewshot_rival=3))


def test_the_search_ends_with_as_many_examples_as_there_are(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra [improve] is not installed")
    data = make_dataset(tmp_path / "kmmlu", dev=2)
    names = {"recipes", "output_dir", "dataset", "model", "selection", "weakness"}
    values = make_config(tmp_path / "made", data).model_dump(include=names)
    result = run_search(
        build_config(ImproveConfig, **values), FakeWorkers({"learningrate0.0002-r8": 0.42}, [])
    )
    assert result.confirmation.rival is not None
    assert any(path.endswith("base-test-2") for path in result.confirmation.runs)


class EarlyWorkers(NoWorkers):
    """Evaluations that stop early, with a fake engine whose second adapter is no better than the base."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.asked: list[dict[str, Any]] = []

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        self.asked.append(settings)
        made = build_config(EvalConfig, **settings, adapter_mode="serve", subjects=list(SIZES))
        return early_cases.run(made, Skilled(self.data, {**GAIN, "other": 0.44}))


def gain_on_shared(before: Run, after: Run) -> tuple[ChangeInterval, int]:
    """As if the number of questions had been fixed, on those that both answered."""
    both = before.frame.select("question_id", pl.col("correct").alias("before")).join(
        after.frame, on="question_id"
    )
    gained = int((both["correct"] & ~both["before"]).sum())
    lost = int((both["before"] & ~both["correct"]).sum())
    return exact_change_interval(gained, lost, len(both)), len(both)


def test_intervals_hold_where_asking_stopped(
    model: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interval for a number of questions that was fixed before is too narrow for one that the answers
    chose: the confirmed gain's is the sequential test's, the recipe's and the rival's are no narrower.
    """
    monkeypatch.setattr(passes, "FIRST", 40)
    data = early_cases.write_exam(tmp_path)
    made = make_config(
        tmp_path / "made", data, fewshot_rival=2, model=str(model), max_questions=200, margin=3.0
    )
    other = make_tiny_adapter(model, tmp_path / "other", seed=1)
    protocol = {"num_fewshot": 0, "prompt_style": "qa"}
    found = confirm_winner(made, protocol, {"lora": lora, "other": other}, EarlyWorkers(data))
    assert found.verdicts == {"lora": "better", "other": "undecided"} and 40 <= found.questions <= 200
    runs = [load_run_directory(Path(path), prefix=True) for path in found.runs]
    for gain, run in zip(found.gains.values(), runs[1:3], strict=True):
        decision = run.pass_metrics.decision
        assert (gain.low, gain.high) == (decision["low"], decision["high"])
        assert gain.low < gain.value < gain.high
    low, high = (mean(getattr(gain, end) for gain in found.gains.values()) for end in ("low", "high"))
    assert found.effect.low <= low and high <= found.effect.high
    fixed, count = gain_on_shared(runs[3], runs[1])
    assert found.rival.value == fixed.value and count == found.questions_by_adapter["lora"]
    assert found.rival.high - found.rival.low > fixed.high - fixed.low
    assert found.rival.low > 0  # two examples do not help the fake base


def test_each_adapter_is_measured_on_all_that_it_answered(
    model: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is decided early; what is said of the first must not end there."""
    monkeypatch.setattr(passes, "FIRST", 40)
    data = early_cases.write_exam(tmp_path)
    made = make_config(
        tmp_path / "made", data, fewshot_rival=2, model=str(model), max_questions=200, margin=3.0
    )
    other = make_tiny_adapter(model, tmp_path / "other", seed=1)
    workers = EarlyWorkers(data)
    protocol = {"num_fewshot": 0, "prompt_style": "qa"}
    found = confirm_winner(made, protocol, {"other": other, "lora": lora}, workers)
    assert found.verdicts == {"other": "undecided", "lora": "better"}
    base, slow, quick, rival = (load_run_directory(Path(path), prefix=True) for path in found.runs)
    assert found.questions_by_adapter == {"other": 200, "lora": len(quick.frame)}
    assert found.questions == len(quick.frame) < 200
    for name, run in (("other", slow), ("lora", quick)):
        gain, count = gain_on_shared(base, run)
        assert (found.gains[name].value, found.questions_by_adapter[name]) == (gain.value, count)
        right = base.frame.join(run.frame.select("question_id"), on="question_id")["correct"].mean()
        assert found.base_by_adapter[name] == pytest.approx(right)
    assert found.base == found.base_by_adapter["lora"] != found.base_by_adapter["other"]
    assert found.effect.questions == found.questions
    assert found.effect.low <= found.effect.inner_low <= found.effect.effect <= found.effect.high
    beyond, count = gain_on_shared(rival, slow)
    assert count == 200 and found.rival.value == beyond.value  # all that the first adapter answered
    assert [settings.get("order") for settings in workers.asked] == ["uniform", None]


class WholeThenEarly(EarlyWorkers):
    """The adapters answer all of test, the rival stops early."""

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        if "adapter" in settings:
            stops = ("until_decided", "max_questions", "margin", "order")
            return super().evaluate({name: value for name, value in settings.items() if name not in stops})
        return super().evaluate({**settings, "questions": 100})


def test_a_rival_that_stopped_early_is_compared_by_the_sequential_test(
    model: Path, lora: Path, tmp_path: Path
) -> None:
    data = early_cases.write_exam(tmp_path)
    made = make_config(tmp_path / "made", data, fewshot_rival=2, model=str(model), max_questions=200)
    protocol = {"num_fewshot": 0, "prompt_style": "qa"}
    found = confirm_winner(made, protocol, {"lora": lora}, WholeThenEarly(data))
    tuned, rival = (load_run_directory(Path(path), prefix=True) for path in found.runs[1:])
    assert tuned.prefix is None and rival.prefix is not None and found.effect is None
    fixed, count = gain_on_shared(rival, tuned)
    assert count == 100 and found.rival.value == fixed.value
    assert found.rival.high - found.rival.low > fixed.high - fixed.low
