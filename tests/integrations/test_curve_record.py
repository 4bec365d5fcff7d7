"""What lets a resumed training continue its curve, and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.integrations.curve_record import (
    CurveRecord,
    curve_record_path,
    find_differences,
    keep_curve_record,
    model_label,
    read_curve_record,
    write_curve_record,
)

ASKED = {
    "exam": "kmmlu",
    "split": "train",
    "subjects": ["Law"],
    "questions": 450,
    "seed": 42,
    "prompt_style": "lm-eval",
    "model": "Tiny-1B",
    "prompts": "ab12",
}
IDS = ["q3", "q1", "q2"]
RECORDED = CurveRecord(training="t", looks=2, step=8, start={"q1": "A", "q3": None}, asked=ASKED)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = curve_record_path(tmp_path / "new", "kmmlu")
    write_curve_record(path, RECORDED)
    assert read_curve_record(path) == RECORDED and path.name == "kmmlu_watch.json"
    assert find_differences(RECORDED, dict(ASKED), IDS) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("prompt_style", "chat", "prompt_style ('lm-eval' there, 'chat' here)"),
        ("exam", "mine", "exam ('kmmlu' there, 'mine' here)"),
        ("split", "test", "split ('train' there, 'test' here)"),
        ("subjects", [], "subjects (['Law'] there, [] here)"),
        ("questions", 900, "questions (450 there, 900 here)"),
        ("seed", 1, "seed (42 there, 1 here)"),
        ("model", "Tiny-3B", "model ('Tiny-1B' there, 'Tiny-3B' here)"),
        ("prompts", "cd34", "other prompts for the same questions"),
    ],
)
def test_what_is_asked_otherwise_is_named(name: str, value: Any, said: str) -> None:
    assert find_differences(RECORDED, ASKED | {name: value}, IDS) == [said]


def test_the_digest_is_named_only_if_nothing_else_differs() -> None:
    differing = find_differences(RECORDED, ASKED | {"prompt_style": "chat", "prompts": "cd34"}, IDS)
    assert differing == ["prompt_style ('lm-eval' there, 'chat' here)"]


def test_other_questions_than_the_first_are_a_difference() -> None:
    assert find_differences(RECORDED, ASKED, ["q1", "q2", "q3"]) == ["other questions"]
    assert find_differences(RECORDED, ASKED, ["q3"]) == ["other questions"]


def test_a_model_that_is_not_known_differs_from_none() -> None:
    assert find_differences(RECORDED, ASKED | {"model": None}, IDS) == []


def test_a_record_of_before_continues(tmp_path: Path) -> None:
    old = {"training": "t", "looks": 2, "step": 8, "start": {"q1": "A", "q3": None}}
    path = curve_record_path(tmp_path, "kmmlu")
    path.write_text(json.dumps(old))
    record = read_curve_record(path)
    assert record.start == RECORDED.start and find_differences(record, ASKED, IDS) == []
    assert find_differences(record, ASKED, ["q2", "q1", "q3"]) == ["other questions"]


@pytest.mark.parametrize(
    "changes",
    [
        {"start": {}},
        {"start": {"q1": ["A"]}},
        {"start": "A"},
        {"looks": -1},
        {"looks": "2"},
        {"training": 5},
        {"asked": ["kmmlu"]},
    ],
)
def test_a_damaged_record_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = {"training": "t", "looks": 2, "step": 8, "start": {"q1": "A"}, "asked": {}}
    path = curve_record_path(tmp_path, "kmmlu")
    path.write_text(json.dumps(whole | changes))
    with pytest.raises(RunError, match="kmmlu_watch"):
        read_curve_record(path)


def test_copies_of_two_curves_do_not_replace_each_other(tmp_path: Path) -> None:
    other = CurveRecord(training="t", looks=0, step=8, start={"q1": "B"}, asked=ASKED | {"seed": 1})
    path = curve_record_path(tmp_path, "kmmlu")
    names = {keep_curve_record(path, RECORDED), keep_curve_record(path, other)}
    assert len(names) == 2 and {path.name for path in tmp_path.iterdir()} == names
    assert all(name.startswith("kmmlu_watch-until-8-") for name in names)


def test_a_model_keeps_its_label_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, model = tmp_path / "out", tmp_path / "models" / "Tiny-1B"
    model.mkdir(parents=True)
    cached = tmp_path / "hub" / "models--org--Tiny-1B" / "snapshots" / "abc"
    monkeypatch.chdir(model)
    names = ["org/Tiny-1B", str(model), "../Tiny-1B", ".", str(cached)]
    assert {model_label(name, out) for name in names} == {"Tiny-1B"}


def test_checkpoints_and_models_without_a_name_have_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint-4").mkdir()
    assert model_label(str(tmp_path / "checkpoint-4"), tmp_path) is None
    assert model_label("", tmp_path) is None
    monkeypatch.chdir(tmp_path)
    assert model_label("org/Tiny-1B", Path()) == "Tiny-1B"  # trained in the current folder
