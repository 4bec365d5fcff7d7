"""Marks of options: what each names, and options that bring their own."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.option_marks import read_mark, read_whole_number, strip_option_marks

KMMLU = Path(__file__).resolve().parents[3] / "shared" / "kmmlu"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A", 0),
        ("(e)", 4),
        ("Ｃ", 2),
        (" d. ", 3),
        ("③", 2),
        ("(나)", 1),
        ("ㄹ", 3),
        ("㉰", 2),
        ("5번", 4),
        ("4 번", 3),
        ("11번", None),
        ("K", None),
        ("3", None),
        ("각", None),
        ("나무", None),
        ("", None),
    ],
)
def test_a_mark_names_a_place_and_a_bare_number_does_not(text: str, place: int | None) -> None:
    assert read_mark(text) == place


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2, 2),
        (2.0, 2),
        ("2", 2),
        (" 2.0 ", 2),
        ("(2)", 2),
        ("-1", -1),
        (2.5, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ("two", None),
        ("2.5", None),
    ],
)
def test_whole_numbers_as_tables_hold_them(value: object, number: int | None) -> None:
    assert read_whole_number(value) == number


@pytest.mark.parametrize(
    ("options", "texts", "first"),
    [
        (["A. 봄", "B. 여름"], ["봄", "여름"], None),
        (["가. 봄", "나) 여름", "다. 가을"], ["봄", "여름", "가을"], None),
        (["①봄", "② 여름"], ["봄", "여름"], None),
        (["1) 봄", "2) 여름"], ["봄", "여름"], 1),
        (["0. 봄", "1. 여름"], ["봄", "여름"], 0),
        # no marks: numbers that are values, statements of the question, only some, or nothing behind
        (["1.5 kg", "2.5 kg"], ["1.5 kg", "2.5 kg"], None),
        (["A:B", "B:C"], ["A:B", "B:C"], None),
        (["a)봄", "b)여름"], ["봄", "여름"], None),
        (["① 과 ②", "② 와 ③"], ["① 과 ②", "② 와 ③"], None),
        (["(A) → (B)", "(B) → (A)"], ["(A) → (B)", "(B) → (A)"], None),
        (["(가) - 봄", "(나) - 여름"], ["(가) - 봄", "(나) - 여름"], None),
        (["1. 2 kW", "2. 2 kW"], ["1. 2 kW", "2. 2 kW"], None),
        (["1번 탭", "2번 탭"], ["1번 탭", "2번 탭"], None),
        (["3번 탭", "2번 탭", "1번 탭"], ["3번 탭", "2번 탭", "1번 탭"], None),
        (["A. 봄", "여름"], ["A. 봄", "여름"], None),
        (["①", "②"], ["①", "②"], None),
        (["3. 봄", "4. 여름"], ["3. 봄", "4. 여름"], None),
        (["가다", "나무"], ["가다", "나무"], None),
    ],
)
def test_marks_that_agree_with_their_places_are_taken_off(
    options: list[str], texts: list[str], first: int | None
) -> None:
    assert strip_option_marks(options, "x") == (texts, first)


def test_no_option_of_real_questions_is_taken_for_a_mark() -> None:
    """KMMLU's options bring no marks, but many that look like some: references, times, OCR of decimals."""
    files = sorted(KMMLU.glob("data/*.csv"))
    if not files:
        pytest.skip("../shared/kmmlu is absent")
    for path in files:
        frame = pl.read_csv(path, columns=list("ABCD"), infer_schema=False)
        for options in frame.iter_rows():
            assert strip_option_marks(options, path.name) == (list(options), None)


def test_marks_that_contradict_their_places_are_refused() -> None:
    with pytest.raises(DataError, match=r"x: the options' own marks \(2, 1, 3\) contradict their places"):
        strip_option_marks(["2. 봄", "1. 여름", "3. 가을"], "x")
