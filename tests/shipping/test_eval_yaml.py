"""The eval.yaml of a data set: what inspect-ai reads, and answers that it would read wrongly."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import find_exam
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.exams import run_exams_command
from kmmlu_fast.shipping.eval_yaml import LETTER_COLUMN, make_eval_yaml


def exam(**fields: Any) -> Exam:
    base = {"name": "own", "hub": "org/own", "question": "q", "options": "choices", "answer": "key"}
    return Exam(**{**base, "coding": "letter", **fields})


def test_kmmlu_has_a_task_per_subject_and_needs_letters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_exams_command(["--eval-yaml", "kmmlu"]) == 0
    printed = capsys.readouterr()
    document = yaml.safe_load(printed.out)
    assert [task["config"] for task in document["tasks"]] == list(SUBJECTS)
    assert len({task["id"] for task in document["tasks"]}) == 45
    assert document["tasks"][0]["field_spec"] == {
        "input": "question",
        "target": LETTER_COLUMN,
        "choices": ["A", "B", "C", "D"],
    }
    assert "count from 0" in printed.err and LETTER_COLUMN in printed.err


@pytest.mark.parametrize("coding", ["letter", "from 0"])
def test_answers_that_readers_take_as_they_are(coding: str) -> None:
    made = make_eval_yaml(exam(coding=coding))
    assert made.notes == () and yaml.safe_load(made.value)["tasks"][0]["field_spec"]["target"] == "key"


def test_inspect_takes_every_task_and_would_miscount_kmmlus_own_answers() -> None:
    hf = pytest.importorskip("inspect_ai._eval.task.hf", reason="needs inspect_ai (pip install inspect_ai)")
    for task in yaml.safe_load(make_eval_yaml(find_exam("kmmlu")).value)["tasks"]:
        fields = hf.HFTask.model_validate(task).field_spec
        row = {"question": "?", "A": "가", "B": "나", "C": "다", "D": "라", "answer": 1, LETTER_COLUMN: "A"}
        assert hf._record_to_sample_hf(row, fields).target == "A"
        assert hf._sanitize_target(row, "answer", True) == "B"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hub": None, "path": "x.csv"}, "is not a data set of the hub"),
        ({"question": "{a} {b}"}, "put together from several columns"),
        ({"context": "paragraph"}, "put together from several columns"),
        ({"options": {"fixed": ["예", "아니오"]}}, "put together from several columns"),
        ({"configs": ["bar_*"]}, "'bar_\\*' is a pattern"),
    ],
)
def test_what_such_a_file_cannot_say_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_eval_yaml(exam(**fields))
