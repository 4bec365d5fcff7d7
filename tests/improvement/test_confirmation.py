"""What the winner is compared with, chosen before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_searches import FakeWorkers, make_config, make_dataset

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import choose_rival_examples
from kmmlu_fast.improvement.search import run_search


class NoWorkers:
    """Nothing may be asked or trained."""

    def evaluate(self, settings: dict[str, Any]) -> Any:
        raise AssertionError

    def train(self, pieces: Any) -> Any:
        raise AssertionError


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
