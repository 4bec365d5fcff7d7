"""The packaged sample: complete, balanced, without repeats, and in the hub's layout to the byte."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter

import pytest

from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS

ROWS = {"dev": 2, "train": 4, "test": 4}
HEADER = ["question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy"]


@pytest.fixture(scope="module")
def questions() -> dict[str, list[Question]]:
    return {split: dataset.load_questions("sample", split) for split in ROWS}


def _all(questions: dict[str, list[Question]]) -> list[Question]:
    return [question for split in questions.values() for question in split]


def _normal(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


def _keys(questions: list[Question]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for question in questions:
        keys.setdefault(question.subject, []).append(question.answer)
    return keys


@pytest.mark.parametrize(("split", "rows"), ROWS.items())
def test_every_subject_has_its_rows(questions: dict[str, list[Question]], split: str, rows: int) -> None:
    assert Counter(question.subject for question in questions[split]) == dict.fromkeys(SUBJECTS, rows)
    assert len(SUBJECTS) == 45


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_letter_is_the_key_once_a_subject(questions: dict[str, list[Question]], split: str) -> None:
    keys = _keys(questions[split])
    assert {subject: sorted(letters) for subject, letters in keys.items()} == {
        subject: list(LETTERS) for subject in SUBJECTS
    }
    assert len({tuple(letters) for letters in keys.values()}) > 12, (
        "the order of keys must vary between subjects"
    )


def test_dev_keys_differ_and_are_balanced_overall(questions: dict[str, list[Question]]) -> None:
    assert [subject for subject, letters in _keys(questions["dev"]).items() if len(set(letters)) != 2] == []
    counts = Counter(question.answer for question in questions["dev"])
    assert sorted(counts.values()) == [22, 22, 23, 23]


def test_options_are_distinct_and_trimmed(questions: dict[str, list[Question]]) -> None:
    for question in _all(questions):
        # case and outer space only: -4 and 4, or +6 and 6, are different options
        assert len({option.casefold() for option in question.options}) == 4, question.question_id
        for text in (question.question, *question.options):
            assert text == text.strip() and "\n" not in text, question.question_id


def test_no_question_repeats_within_or_between_splits(questions: dict[str, list[Question]]) -> None:
    counts = Counter(_normal(question.question) for question in _all(questions))
    assert [text for text, count in counts.items() if count > 1] == []


def test_key_is_not_given_away_by_its_length(questions: dict[str, list[Question]]) -> None:
    def longest(question: Question) -> bool:
        lengths = dict(zip(LETTERS, map(len, question.options), strict=True))
        return all(
            lengths[question.answer] > length
            for letter, length in lengths.items()
            if letter != question.answer
        )

    every = _all(questions)
    assert sum(map(longest, every)) / len(every) < 0.3


@pytest.mark.parametrize("split", ROWS)
def test_files_have_the_hubs_layout(split: str) -> None:
    for subject in SUBJECTS.values():
        path = dataset.SAMPLE_DIR / "data" / f"{subject.stem}-{split}.csv"
        content = path.read_bytes()
        assert b"\r" not in content and content.endswith(b"\n"), path.name
        header, *rows = csv.reader(content.decode("utf-8").splitlines())
        assert header == HEADER, path.name
        assert {(row[6], row[7]) for row in rows} == {(subject.name, "")}, path.name


def test_sample_is_dedicated_to_the_public_domain() -> None:
    assert "creativecommons.org/publicdomain/zero/1.0" in (dataset.SAMPLE_DIR / "LICENSE-CC0").read_text(
        encoding="utf-8"
    )
