"""Difficulty table and the one random order. What is shipped is checked for form, not for its numbers."""

import numpy as np
import polars as pl

from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset, difficulty


def _questions(counts: dict[str, int]) -> list[Question]:
    return [
        Question(
            question_id=f"{subject}/test/{row}",
            subject=subject,
            supercategory="STEM",
            split="test",
            row=row,
            question="?",
            options=("a", "b", "c", "d"),
            answer="A",
        )
        for subject, count in counts.items()
        for row in range(count)
    ]


def test_ease_is_the_share_right_drawn_to_the_subject_by_four_models():
    right = np.array([[1, 0, 1], [1, 0, 0]], dtype=bool)
    found = difficulty.estimate_ease(right, ["Math", "Math", "Law"])
    # Math's share is 1/2: (2 + 4/2) / 6 and (0 + 4/2) / 6; Law's 1/2: (1 + 2) / 6
    assert np.allclose(found, [4 / 6, 2 / 6, 3 / 6])


def test_the_table_knows_every_test_question_once_and_is_small():
    frame = pl.read_parquet(difficulty.TABLE)
    assert frame.height == 35_030 == frame["question_id"].n_unique()
    assert frame.select(pl.col("ease").is_between(0, 1).all()).item()
    assert difficulty.TABLE.stat().st_size < 400 * 1024
    assert (difficulty.TABLE.parent / "README.md").exists()


def test_other_exams_and_splits_have_no_numbers():
    assert difficulty.public_ease([f"Bar-Exam/test/{row}" for row in range(9)]) is None
    assert difficulty.public_ease([]) is None
    found = difficulty.public_ease(["Accounting/test/0", "Accounting/test/1", "Accounting/train/1"])
    assert found is not None and np.isnan(found[2]) and not np.isnan(found[:2]).any()


def test_permutation_is_stable_across_machines_and_versions():
    order = [q.question_id for q in dataset.permute_questions(_questions({"Math": 3, "Law": 2}), seed=42)]
    # blake2b of "42:<id>", written down once: a change would break every run directory
    assert order == ["Math/test/1", "Law/test/0", "Law/test/1", "Math/test/0", "Math/test/2"]


def test_every_slice_is_a_prefix_and_a_subset_keeps_its_order():
    questions = _questions({"Math": 300, "Law": 100})
    order = dataset.permute_questions(questions, seed=1)
    assert order == dataset.permute_questions(reversed(questions), seed=1) and set(order) == set(questions)
    some = dataset.permute_questions(
        [question for question in questions if question.subject == "Math"], seed=1
    )
    assert some == [question for question in order if question.subject == "Math"]
    assert order != dataset.permute_questions(questions, seed=2)
    share = sum(question.subject == "Math" for question in order[:200]) / 200
    assert 0.6 < share < 0.9  # three quarters, but for chance


def test_limit_takes_the_subject_s_first_of_the_same_order():
    questions = _questions({"Math": 50, "Law": 20})
    chosen = dataset.select_questions(questions, 5, "random", 42)
    for subject in ("Math", "Law"):
        order = [
            question for question in dataset.permute_questions(questions, 42) if question.subject == subject
        ]
        assert {q.question_id for q in chosen if q.subject == subject} == {q.question_id for q in order[:5]}
