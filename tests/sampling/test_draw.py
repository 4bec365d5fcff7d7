"""sampling: exact totals, caps and redistribution, the public experiment's lean, seeded draws,
balanced letters.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from score_runs import read_score_run

from kmmlu_fast.core import letters
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import reorder_question
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data.alpaca import IDENTITY
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.sampling import draw as sampling
from kmmlu_fast.sampling.plan import (
    allocate_quotas,
    find_weak_subjects,
    largest_remainder,
    make_sampling_plan,
)

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "ax4_light_zeroshot.json"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="../shared/reference is absent")


def scores(**counts: tuple[int, int]) -> pl.DataFrame:
    """subject=(correct, total), underscores for hyphens."""
    rows = [(name.replace("_", "-"), correct, total) for name, (correct, total) in counts.items()]
    return pl.DataFrame(rows, schema=["subject", "correct", "total"], orient="row")


def questions(
    subject: str, count: int, options: tuple[str, str, str, str] = ("가", "나", "다", "라"), answer: str = "A"
) -> list[Question]:
    group = SUBJECTS[subject].supercategory
    return [
        Question(
            question_id=f"{subject}/train/{i}",
            subject=subject,
            supercategory=group,
            split="train",
            row=i,
            question=f"{subject} {i}번째 물음은?",
            options=options,
            answer=answer,
        )
        for i in range(count)
    ]


def test_largest_remainder_by_hand():
    assert largest_remainder({"a": 1, "b": 1, "c": 1}, 10) == {
        "a": 4,
        "b": 3,
        "c": 3,
    }  # equal remainders: by name
    assert largest_remainder({"a": 2.6, "b": 1.3, "c": 0.1}, 4) == {"a": 3, "b": 1, "c": 0}


@pytest.mark.parametrize("size", [1, 7, 500, 499, 1234])
def test_totals_are_exact(size: int):
    targets = {name: 1.0 + i % 7 for i, name in enumerate(SUBJECTS)}
    assert sum(largest_remainder(targets, size).values()) == size


def test_shortfall_goes_to_subjects_with_room_in_proportion_to_their_targets():
    quota, drawn = allocate_quotas({"a": 50, "b": 30, "c": 20}, {"a": 10, "b": 1000, "c": 1000}, 100)
    assert quota == {"a": 50, "b": 30, "c": 20}
    assert drawn == {"a": 10, "b": 54, "c": 36}  # 40 missing: 24 to b, 16 to c


def test_shortfall_cascades_until_supply_is_used_up():
    _, drawn = allocate_quotas({"a": 90, "b": 9, "c": 1}, {"a": 5, "b": 10, "c": 85}, 100)
    assert drawn == {"a": 5, "b": 10, "c": 85}


def test_a_size_larger_than_supply_is_one_clear_line():
    with pytest.raises(ConfigError, match="--size 11 is larger than the 10 questions"):
        allocate_quotas({"a": 1, "b": 1}, {"a": 5, "b": 5}, 11)


def test_weak_subjects_by_accuracy_fraction_or_name():
    table = scores(Math=(1, 10), Law=(5, 10), Biology=(9, 10), Chemistry=(4, 10))
    assert find_weak_subjects(table) == ["Chemistry", "Math"]  # micro is 19 / 40
    assert find_weak_subjects(table, fraction=0.25) == ["Math"]
    assert find_weak_subjects(table, named=["Law"]) == ["Law"]


def test_strategic_plan_by_hand():
    """100 rows, 70 to the weak two by errors 9 : 5, 30 evenly to three."""
    table = scores(Math=(1, 10), Law=(5, 10), Biology=(9, 10))
    plan = make_sampling_plan(table, {"Math": 1000, "Law": 1000, "Biology": 1000}, 100, weak=["Math", "Law"])
    rows = {r["subject"]: r for r in plan.iter_rows(named=True)}
    assert rows["Math"]["target"] == pytest.approx(10 + 70 * 9 / 14) and rows["Math"]["quota"] == 55
    assert rows["Law"]["target"] == pytest.approx(10 + 70 * 5 / 14) and rows["Law"]["quota"] == 35
    assert rows["Biology"]["quota"] == 10 and not rows["Biology"]["weak"]
    assert rows["Math"]["weight"] == pytest.approx(9 / 14) and rows["Math"]["errors"] == 9
    assert plan["subject"].to_list() == ["Biology", "Law", "Math"]  # the subject table's order


def test_uniform_and_proportional_plans():
    supply = {"Math": 300, "Law": 100}
    assert dict(make_sampling_plan(None, supply, 40, "uniform").select("subject", "drawn").iter_rows()) == {
        "Math": 20,
        "Law": 20,
    }
    assert dict(
        make_sampling_plan(None, supply, 40, "proportional").select("subject", "drawn").iter_rows()
    ) == {
        "Math": 30,
        "Law": 10,
    }


def test_plan_refuses_an_empty_pool_and_weak_subjects_without_errors():
    with pytest.raises(ConfigError, match="pool is empty"):
        make_sampling_plan(None, {"Math": 0}, 5, "uniform")
    with pytest.raises(ConfigError, match="no weak subject with errors"):
        make_sampling_plan(scores(Math=(10, 10)), {"Math": 20}, 5, weak=["Math"])


@needs_reference
def test_the_reference_scores_lean_as_the_public_experiment_did():
    table = read_score_run(REFERENCE).scores
    weak = find_weak_subjects(table)
    plan = make_sampling_plan(table, dict.fromkeys(SUBJECTS, 10_000), 500, weak=weak, weak_share=0.7)
    quota = dict(plan.select("subject", "quota").iter_rows())
    expected = {
        "Electrical-Engineering": 22,
        "Energy-Management": 22,
        "Environmental-Science": 22,
        "Agricultural-Sciences": 21,
        "Biology": 20,
    }
    assert {name: quota[name] for name in expected} == expected
    assert sum(quota.values()) == 500
    assert sum(plan.filter("weak")["target"]) == pytest.approx(350 + 150 * len(weak) / 45)


def test_draws_are_seeded_stable_and_grow():
    pool = [*questions("Math", 50), *questions("Law", 50)]
    few = sampling.draw_questions(pool, {"Math": 5, "Law": 3}, seed=42)
    assert few == sampling.draw_questions(
        list(reversed(pool)), {"Law": 3, "Math": 5}, seed=42
    )  # the pool's order does not matter
    assert set(few) < set(sampling.draw_questions(pool, {"Math": 9, "Law": 4}, seed=42))
    assert few != sampling.draw_questions(pool, {"Math": 5, "Law": 3}, seed=43)
    # Pinned: another machine, Python or polars must draw these very rows.
    assert [q.question_id for q, _ in few] == PINNED


PINNED = [
    "Math/train/48",
    "Law/train/23",
    "Law/train/6",
    "Math/train/31",
    "Math/train/44",
    "Math/train/35",
    "Law/train/19",
    "Math/train/45",
]


def test_repeats_start_only_when_the_subject_is_used_up():
    chosen = sampling.draw_questions(questions("Math", 3), {"Math": 7}, seed=1, max_repeats=3)
    assert sorted(Counter(repeat for _, repeat in chosen).items()) == [(0, 3), (1, 3), (2, 1)]
    orders = sampling.option_orders(chosen, seed=1)
    used = [(q.question_id, order) for (q, _), order in zip(chosen, orders, strict=True)]
    assert len(set(used)) == 7


def test_every_order_of_a_question_can_be_used_once():
    chosen = sampling.draw_questions(questions("Math", 1), {"Math": 24}, seed=1, max_repeats=24)
    assert set(sampling.option_orders(chosen, seed=1)) == set(sampling.ORDERS)


def test_options_that_name_each_other_are_neither_reordered_nor_repeated():
    bound = questions("Math", 2, ("1번과 2번", "하나", "둘", "위의 모두"), "D")
    assert sampling.subject_capacity([*bound, *questions("Law", 2)], 3) == {"Math": 2, "Law": 6}
    assert sampling.option_orders([(q, 0) for q in bound], seed=1) == [IDENTITY, IDENTITY]


@pytest.mark.parametrize("option", ["①, ③", "1번과 3번", "위의 모두", "이상 모두 해당", "A와 C"])
def test_position_bound_options_are_recognised(option: str):
    assert letters.is_position_bound(questions("Math", 1, ("하나", "둘", "셋", option))[0])


@pytest.mark.parametrize("option", ["비타민 A", "모두 세 개", "12번째", "ABCD", "위치 에너지", "A"])
def test_ordinary_options_are_not(option: str):
    assert not letters.is_position_bound(questions("Math", 1, ("하나", "둘", "셋", option))[0])


def test_letters_are_balanced_overall_and_within_each_subject():
    """The source's key is all A; the rows' must not be."""
    chosen = [
        (q, 0)
        for subject, n in (("Math", 7), ("Law", 10), ("Biology", 1), ("Chemistry", 22))
        for q in questions(subject, n)
    ]
    orders = sampling.option_orders(chosen, seed=3)
    moved = [reorder_question(q, order) for (q, _), order in zip(chosen, orders, strict=True)]
    assert all(
        q.options[LETTERS.index(q.answer)] == "가" for q in moved
    )  # the right option is still the right one
    for group in [
        moved,
        *([q for q in moved if q.subject == s] for s in ("Math", "Law", "Biology", "Chemistry")),
    ]:
        counts = Counter(q.answer for q in group)
        assert max(counts[x] for x in LETTERS) - min(counts[x] for x in LETTERS) <= 1
    assert sampling.option_orders(chosen, seed=3, permute=False) == [IDENTITY] * len(chosen)


def test_distractors_move_too():
    orders = sampling.option_orders([(q, 0) for q in questions("Math", 200)], seed=5)
    assert len(set(orders)) == 24


def test_errors_are_drawn_hardest_first_or_at_random():
    pool = questions("Math", 6)
    margins = {
        "Math/train/0": 0.5,
        "Math/train/1": 4.0,
        "Math/train/2": None,
        "Math/train/3": 2.0,
        "Math/train/9": 9.0,
    }
    hardest = sampling.draw_wrong_questions(pool, margins, 2, "hardest", seed=1)
    assert {q.row for q, _ in hardest} == {1, 3}
    assert {q.row for q, _ in sampling.draw_wrong_questions(pool, margins, 4, "random", seed=1)} == {
        0,
        1,
        2,
        3,
    }
    with pytest.raises(ConfigError, match=re.escape("larger than the 4 wrongly answered")):
        sampling.draw_wrong_questions(pool, margins, 5, "hardest", seed=1)
