"""The share of time is kept under made-up clocks: slow first steps, slow looks, short trainings."""

from __future__ import annotations

import itertools

import pytest

from kmmlu_fast.integrations.look_schedule import FEWEST_QUESTIONS, LOOKS, LookSchedule


def walk(
    share: float, steps: list[float], sec_per_question: float, wanted: int = 450
) -> tuple[float, list[int]]:
    """Play a training. Returns the share of time that looking took, and the steps that were looked at."""
    schedule = LookSchedule(share=share, every=None, total_steps=len(steps))
    now = steps[0]
    count = schedule.question_count(450, sec_per_question, steps[0], is_first_step=True)
    if count == 0:
        return 0.0, []
    schedule.add_look(count * sec_per_question, count)
    now += count * sec_per_question
    looked = [0]
    for step, seconds in enumerate(steps, 1):
        now += seconds if step > 1 else 0.0
        if count := schedule.questions_due(step, now):
            schedule.add_look(count * sec_per_question, count)
            now += count * sec_per_question
            looked.append(step)
    return schedule.share_so_far(now), looked


def walk_timed(steps: list[float], sec_per_question: float) -> tuple[float, list[int]]:
    """As ``walk``, with the first look after the third step, at what the faster of steps 2 and 3 took."""
    schedule = LookSchedule(share=0.05, every=None, total_steps=len(steps))
    now, looked = 0.0, []
    for step, seconds in enumerate(steps, 1):
        now += seconds
        if step == 3:
            count = schedule.question_count(450, sec_per_question, min(steps[1:3]))
            looked.append(0)
        else:
            count = schedule.questions_due(step, now) if schedule.looks else 0
            looked += [step] * bool(count)
        if step == 3 and count == 0:
            return 0.0, []
        if count:
            schedule.add_look(count * sec_per_question, count)
            now += count * sec_per_question
    return schedule.share_so_far(now), looked


@pytest.mark.parametrize("first", [1.0, 5.0, 61.0])
@pytest.mark.parametrize("count", [20, 100, 400])
@pytest.mark.parametrize("sec_per_question", [0.002, 0.02, 0.1, 0.39])
def test_share_is_kept_in_short_trainings(first: float, count: int, sec_per_question: float) -> None:
    share, looked = walk_timed([first] + [1.0] * (count - 1), sec_per_question)
    assert share <= 0.0501
    assert not looked or (looked[0] == 0 and looked[-1] == count)
    assert bool(looked) == (0.05 * count >= 2 * FEWEST_QUESTIONS * sec_per_question)


@pytest.mark.parametrize("first", [1.0, 5.0])
@pytest.mark.parametrize("count", [20, 100, 400])
@pytest.mark.parametrize("sec_per_question", [0.002, 0.02, 0.1, 0.39])
def test_share_is_kept_where_only_the_first_step_is_timed(
    first: float, count: int, sec_per_question: float
) -> None:
    share, _ = walk(0.05, [first] + [1.0] * (count - 1), sec_per_question)
    assert share <= 0.0501


@pytest.mark.parametrize("first", [1.0, 5.0, 0.2])
@pytest.mark.parametrize("sec_per_question", [0.001, 0.01, 0.1])
def test_share_is_kept(first: float, sec_per_question: float) -> None:
    share, looked = walk(0.05, [first] + [1.0] * 999, sec_per_question)
    assert share <= 0.0501
    if (first, sec_per_question) == (0.2, 0.1):  # by the first step the training seems too short
        assert looked == []
    else:
        assert looked[0] == 0 and looked[-1] == 1000


def test_looks_are_spread_over_the_training() -> None:
    _, looked = walk(0.05, [1.0] * 1000, 0.02)
    assert len(looked) >= LOOKS - 1
    gaps = [after - before for before, after in itertools.pairwise(looked)]
    assert max(gaps) < 500


def test_a_training_too_short_is_not_looked_at_and_says_what_it_needs() -> None:
    schedule = LookSchedule(share=0.05, every=None, total_steps=10)
    assert schedule.question_count(450, 0.1, 1.0) == 0
    needed = schedule.needed_share(0.1, 1.0)
    assert LookSchedule(share=needed * 1.01, every=None, total_steps=10).question_count(450, 0.1, 1.0) >= (
        FEWEST_QUESTIONS
    )
    first = schedule.needed_share(0.1, 1.0, is_first_step=True)
    enough = LookSchedule(share=first * 1.01, every=None, total_steps=10)
    assert enough.question_count(450, 0.1, 1.0, is_first_step=True) >= FEWEST_QUESTIONS


def test_every_ignores_the_clock() -> None:
    schedule = LookSchedule(share=None, every=4, total_steps=10)
    assert schedule.question_count(450, 9.0, 1.0) == 450
    schedule.add_look(900.0, 450)
    assert [step for step in range(1, 11) if schedule.questions_due(step, 0.0)] == [4, 8, 10]
