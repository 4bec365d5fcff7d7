"""The train questions that a search is decided on, and what is left to learn from."""

from __future__ import annotations

import re

import pytest

from kmmlu_fast.command.flags import build_config, parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data import dataset
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.selection import selection_question_ids


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
