"""Which questions occur in training rows of any kind, and what is said of what was not searched."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from kmmlu_fast.integrations import searched_rows
from kmmlu_fast.integrations.searched_rows import SearchedRows, search_rows

QUESTION = ("바람이 부는 쪽의 이름은?", "동쪽", "서쪽")
TEXT = "질문: 바람이  부는 쪽의 이름은?\nA. 동쪽\nB. 서쪽"


class Codes:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def codes(text: str) -> list[int]:
    return list(map(ord, text))


@pytest.mark.parametrize(
    "row",
    [
        TEXT,
        {"text": TEXT},
        {"messages": [{"role": "user", "content": TEXT}]},
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}], "chosen": []},
        {"input_ids": codes(TEXT), "labels": [-100, -100]},
        {"input_ids": np.array(codes(TEXT))},
        {"input_ids": [codes("..."), codes(TEXT)]},
        {"prompt_ids": codes(TEXT), "chosen_ids": codes(" A"), "rejected_ids": codes(" B")},
        {"prompt_input_ids": codes(TEXT)},
    ],
)
def test_a_question_is_found_in_any_kind_of_row(row: Any) -> None:
    found = search_rows([{"text": "다른 것"}, row], Codes())
    assert found.note == "" and found.holds_all(QUESTION)
    assert not found.holds_all((*QUESTION, "남쪽"))


def test_numbers_that_are_not_tokens_are_not_read() -> None:
    found = search_rows([{"text": "글", "user_ids": [-1, 2**40], "position_ids": codes(TEXT)}], Codes())
    assert not found.holds_all(QUESTION)


class Stream:
    def __iter__(self) -> Any:
        return iter([TEXT])


class StreamWithLength(Stream):
    """As torch's, which has a length if its author gives it one, and inherits a method that gives no row."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: int) -> Any:
        raise NotImplementedError


class NoLength(StreamWithLength):
    def __len__(self) -> int:
        raise TypeError("object has no len()")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (None, "the trainer has no training rows yet"),
        (Stream(), "the rows are a stream"),
        (StreamWithLength(), "the rows are a stream"),
        (NoLength(), "the rows are a stream"),
        ([], "the rows hold no text"),
        ([{"pixels": [0.5, 0.25]}], "the rows hold no text"),
    ],
)
def test_why_nothing_was_checked(rows: Any, reason: str) -> None:
    found = search_rows(rows, Codes())
    assert found.note.startswith("whether these questions are among the training rows was not checked: ")
    assert reason in found.note and not found.holds_all(QUESTION)


@pytest.mark.parametrize(("place", "holds"), [(1, True), (2, False)])
def test_rows_beyond_the_most_are_counted_aloud(
    monkeypatch: pytest.MonkeyPatch, place: int, holds: bool
) -> None:
    monkeypatch.setattr(searched_rows, "MOST_ROWS", 2)
    rows = [{"text": "다른 것"}] * 5
    rows[place] = {"text": TEXT}
    found = search_rows(rows, Codes())
    assert found.note.startswith("only the first 2 of 5 training rows were searched")
    assert found.holds_all(QUESTION) is holds
    assert search_rows(rows[:2], Codes()).note == ""


def test_long_rows_are_searched_up_to_a_number_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searched_rows, "MOST_CHARACTERS", 25)
    found = search_rows([{"text": "열" * 10}] * 2 + [{"text": TEXT}] * 7, Codes())
    assert found.note.startswith("only the first 3 of 9 training rows were searched")
    assert found.holds_all(QUESTION)


def test_rows_that_users_code_makes_leave_random_numbers_as_they_were() -> None:
    class Augmented:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, place: int) -> dict[str, str]:
            return {"text": f"{TEXT} {random.random()} {np.random.random()}"}

    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), str(np.random.get_state())
    assert search_rows(Augmented(), Codes()).holds_all(QUESTION)
    assert (random.getstate(), str(np.random.get_state())) == before


def test_images_are_not_decoded() -> None:
    class Image:
        def __repr__(self) -> str:
            return "Image(mode=None, decode=True)"

    class Pictured:
        """As a ``datasets.Dataset`` with a column of lists of images."""

        def __init__(self, columns: tuple[str, ...] = ("text", "images")) -> None:
            self.features = {name: "Value('string')" if name == "text" else [Image()] for name in columns}

        def remove_columns(self, names: list[str]) -> Any:
            return Pictured(tuple(name for name in self.features if name not in names))

        def __len__(self) -> int:
            return 1

        def __getitem__(self, place: int) -> dict[str, str]:
            assert "images" not in self.features
            return {"text": TEXT}

    assert search_rows(Pictured(), Codes()).holds_all(QUESTION)


def test_a_question_of_signs_alone_is_never_found() -> None:
    assert not SearchedRows("").holds_all(("?", "+", "-"))
    assert SearchedRows("무엇인가").holds_all(("무엇인가?", "+", "-"))
