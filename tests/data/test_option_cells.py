"""Options out of whatever cell holds them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.option_cells import open_json_text, read_option_columns, read_option_list

SEASONS = ["봄", "여름", "가을"]


@pytest.mark.parametrize(
    "cell",
    [
        SEASONS,
        json.dumps(SEASONS),
        str(SEASONS),  # as pandas writes a list into a CSV
        [{"label": mark, "text": text} for mark, text in zip("ABC", SEASONS, strict=True)],
        [{"text": text, "is_correct": None} for text in SEASONS],
        [{"id": i, "content": text} for i, text in enumerate(SEASONS)],
        [{mark: text} for mark, text in zip("가나다", SEASONS, strict=True)],
        {"label": ["1", "2", "3"], "text": SEASONS},
        {"C": "가을", "A": "봄", "B": "여름", "D": None, "E": float("nan")},
        {"①": "봄", "②": "여름", "③": "가을"},
        json.dumps({"A": "봄", "B": "여름", "C": "가을"}, ensure_ascii=False),
        [*SEASONS, None, float("nan")],
        [f"{mark}. {text}" for mark, text in zip("ABC", SEASONS, strict=True)],
    ],
)
def test_every_layout_gives_the_same_texts(cell: Any) -> None:
    assert read_option_list(cell, "options", "x").texts == SEASONS


def test_labels_are_what_answers_may_say() -> None:
    cells = read_option_list([{"id": "opt-7", "text": "봄"}, {"id": "opt-3", "text": "여름"}], "o", "x")
    assert cells.labels == ("opt-7", "opt-3")
    assert read_option_list({"text": ["봄", "여름"], "label": ["0", "1"]}, "o", "x").first_number == 0


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("봄, 여름", "holds str, not a list of options"),
        (7, "holds int, not a list of options"),
        (["봄"], "has 1 options; 2 to 10"),
        (["봄", None, "가을"], "option B is empty"),
        ([["봄"], ["여름"]], "an option is a list, not text"),
        ([{"kr": "봄", "en": "spring"}, {"kr": "여름", "en": "summer"}], "option 1 is an object with kr, en"),
        ([{"label": "B", "text": "봄"}, {"label": "A", "text": "여름"}], "labels (B, A) contradict"),
        ({"left": "봄", "right": "여름"}, "holds an object (left, right)"),
    ],
)
def test_what_cannot_be_told_is_refused(cell: Any, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        read_option_list(cell, "options", "t.csv row 3")
    assert str(caught.value).startswith("t.csv row 3: ") and fault in str(caught.value)


def test_columns_that_a_row_does_not_use_are_no_options() -> None:
    assert read_option_columns(["봄", 3, 2.5, float("nan"), None], "x").texts == ["봄", "3", "2.5"]


def test_only_lists_and_objects_are_opened() -> None:
    assert open_json_text('[{"role": "user"}]') == [{"role": "user"}]
    assert open_json_text("{'a': 1}") == {"a": 1}
    assert [open_json_text(text) for text in ("[1번] 고르시오", "(1, 2)", "3")] == [
        "[1번] 고르시오",
        "(1, 2)",
        "3",
    ]
