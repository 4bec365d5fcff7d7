"""The control variate: what it may know, what it must not, and that it removes variance."""

import numpy as np
import pytest

from kmmlu_fast.analysis.sequential.control_variate import KnownQuestions, accuracy_stream, paired_stream

N = 2000


def _world(seed: int):
    draw = np.random.default_rng(seed)
    skill = draw.normal(size=N)
    first = skill + draw.normal(size=N) > 0
    second = skill + draw.normal(size=N) > 0
    return first, second, skill, draw


def _variance(first, second, known) -> float:
    return float(paired_stream(first, second, known).value.var())


def test_each_thing_known_takes_variance_off():
    first, second, skill, draw = _world(0)
    key = draw.integers(0, 4, N)
    habit = second | (key == 2)  # a run that always has the third letter right
    plain = float((habit.astype(float) - first).var())
    bare, eased = (
        _variance(first, habit, KnownQuestions(N)),
        _variance(first, habit, KnownQuestions(N, skill)),
    )
    keyed = _variance(first, habit, KnownQuestions(N, skill, key))
    assert plain > bare > eased > keyed


def test_a_margin_tells_where_an_answer_may_turn():
    first, _, _, draw = _world(1)
    margin = draw.exponential(1.0, N)
    second = np.where(margin < 0.3, draw.random(N) < 0.5, first)
    assert _variance(first, second, KnownQuestions(N, margin=margin)) < _variance(
        first, second, KnownQuestions(N)
    )


@pytest.mark.parametrize("complete", [True, False])
def test_expectations_come_from_the_past_alone(complete):
    first, second, skill, draw = _world(2)
    known = KnownQuestions(N, skill, draw.integers(0, 4, N))
    n = 900
    one = first if complete else first[:n]
    whole = paired_stream(one, second[:n], known)
    changed = second[:n].copy()
    changed[500:] ^= True
    other_first = one.copy()
    if not complete:
        other_first[500:] ^= True
    other = paired_stream(other_first, changed, known)
    for name in ("value", "before", "expected", "least", "most", "spread", "floor", "ceiling"):
        assert np.array_equal(getattr(whole, name)[:500], getattr(other, name)[:500]), name
    for name in ("before", "expected", "least", "most", "spread"):  # known before question 501 is answered
        assert getattr(whole, name)[500] == getattr(other, name)[500], name


def test_a_prefix_is_the_beginning_of_a_longer_one():
    first, second, skill, _ = _world(3)
    short, long = (paired_stream(first, second[:n], KnownQuestions(N, skill)) for n in (700, 1600))
    for name in ("value", "before", "expected", "least", "most", "spread", "floor", "ceiling"):
        assert np.allclose(getattr(short, name), getattr(long, name)[:700], atol=1e-12), name


def test_unknown_numbers_count_as_average_and_constant_ones_as_none():
    first, second, skill, _ = _world(4)
    holes = skill.copy()
    holes[::3] = np.nan
    assert np.isfinite(paired_stream(first, second, KnownQuestions(N, holes)).value).all()
    bare = paired_stream(first, second, KnownQuestions(N)).value
    for nothing in (np.full(N, np.nan), np.full(N, 0.7)):
        assert np.array_equal(paired_stream(first, second, KnownQuestions(N, nothing)).value, bare)


def test_separated_answers_do_not_break_the_fit():
    first = np.arange(N) % 2 == 0
    for second in (first, ~first, np.ones(N, bool), np.zeros(N, bool)):
        paired = paired_stream(first, second, KnownQuestions(N, np.arange(N, dtype=np.float64)))
        for stream in (paired, accuracy_stream(second, KnownQuestions(N))):
            assert np.isfinite(stream.value).all() and (np.abs(stream.value) <= 1).all()


def test_a_first_run_that_became_complete_on_the_way_is_not_known_ahead():
    first, second, skill, _ = _world(5)
    known = KnownQuestions(N, skill)
    along, whole = (
        paired_stream(first[:900], second[:900], known),
        paired_stream(first, second, known, ahead=False),
    )
    assert np.allclose(along.value, whole.value[:900], atol=1e-12)
    assert not np.allclose(paired_stream(first, second, known).value[:900], along.value)
