"""The train questions that a search is decided on, and what is left to learn from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_searches import make_dataset

from kmmlu_fast.command.flags import build_config, parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data import dataset
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.selection import selection_question_ids, shrink_slices


def make_config(**settings) -> ImproveConfig:
    return build_config(ImproveConfig, recipes="unread.yaml", dataset="sample", **settings)


def test_the_slice_is_the_same_number_of_each_subjects_questions() -> None:
    chosen = selection_question_ids(make_config(selection=2, weakness=1))
    subjects = [q.subject for q in dataset.load_questions("sample", "train") if q.question_id in chosen]
    assert len(subjects) == 90 and all(subjects.count(name) == 2 for name in subjects)


@pytest.mark.parametrize(("selection", "weakness"), [(20, 10), (3, 1), (1, 3)])
def test_slices_that_leave_nothing_to_learn_are_refused_with_numbers_that_work(
    selection: int, weakness: int
) -> None:
    with pytest.raises(ConfigError, match="none is left to train on") as error:
        selection_question_ids(make_config(selection=selection, weakness=weakness))
    limit = re.search(r"whose sum is less than (\d+)", str(error.value))
    assert limit is not None and limit[1] == "4"
    assert selection_question_ids(make_config(selection=int(limit[1]) - 2, weakness=1))


def test_the_example_of_the_help_for_the_packaged_sample_leaves_rows_to_train_on() -> None:
    (example,) = [line for line in ImproveConfig.examples if "sample" in line]
    config = parse_config(ImproveConfig, example.split(), "improve")
    assert isinstance(config, ImproveConfig) and selection_question_ids(config)


@pytest.mark.parametrize(("rows", "sizes"), [(3, (1, 1)), (4, (2, 1)), (30, (15, 7)), (31, (20, 10))])
def test_default_slices_leave_rows_of_a_small_train_split(
    tmp_path: Path, rows: int, sizes: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    data = str(make_dataset(tmp_path / "kmmlu", rows=rows))
    config = build_config(ImproveConfig, recipes="unread.yaml", dataset=data)
    with caplog.at_level("INFO", "kmmlu_fast"):
        shrunk = shrink_slices(config)
    assert (shrunk.selection, shrunk.weakness) == sizes and selection_question_ids(shrunk)
    is_said = f"--selection is {sizes[0]}, not 20, and --weakness {sizes[1]}, not 10" in caplog.text
    assert is_said == (rows < 31)


def test_slices_that_were_given_are_not_changed() -> None:
    for given in ({"selection": 20}, {"weakness": 10}):
        config = make_config(**given)
        assert shrink_slices(config) is config
