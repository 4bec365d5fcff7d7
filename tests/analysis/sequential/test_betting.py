"""The sequential test: small cases in every order, then its guarantees by simulation with fixed seeds."""

from itertools import permutations

import numpy as np
import pytest

from kmmlu_fast.analysis.sequential import betting as test
from kmmlu_fast.analysis.sequential.control_variate import (
    AnswerStream,
    KnownQuestions,
    accuracy_stream,
    paired_stream,
)

FIRST = np.array([1, 1, 0, 0, 1, 0], dtype=bool)
SECOND = np.array([1, 0, 1, 1, 1, 0], dtype=bool)  # one lost, two won: the mean difference is 1/6
EASE = np.array([0.9, 0.5, 0.4, 0.6, 0.8, 0.1])
KEY = np.array([0, 1, 2, 3, 0, 1])


def _made(seed, total, gain, discordant=0.2):
    draw = np.random.default_rng(seed)
    skill = draw.normal(size=total)
    first = skill + draw.normal(size=total) > 0
    turned = draw.random(total) < np.where(first, discordant / 2 - gain / 2, discordant / 2 + gain / 2) * 2
    second = first ^ turned
    return first, second, KnownQuestions(total, skill + draw.normal(size=total), draw.integers(0, 4, total))


def _streams(kind: str):
    """The same six questions in each of their 720 orders."""
    for order in map(list, permutations(range(6))):
        known = KnownQuestions(6, EASE[order], KEY[order])
        if kind == "accuracy":
            yield accuracy_stream(SECOND[order], known, refits=[2, 4])
        else:
            first = FIRST[order] if kind == "paired" else FIRST[order][:5]
            yield paired_stream(first, SECOND[order][: len(first)], known, refits=[2, 4])


@pytest.mark.parametrize(("kind", "mean"), [("paired", 1 / 6), ("unknown base", 1 / 6), ("accuracy", 4 / 6)])
@pytest.mark.parametrize("side", [1, -1])
def test_over_all_orders_the_capital_at_the_true_mean_stays_1_on_average(kind, mean, side):
    capitals = np.exp([test.log_capital(stream, mean, side) for stream in _streams(kind)])
    # exactly a martingale: refits, caps and growing bets change nothing about it
    assert np.allclose(capitals.mean(axis=0), 1.0, atol=1e-9)
    assert (capitals > 0).all()


def test_over_all_orders_the_truth_is_refuted_in_less_than_alpha():
    for alpha in (0.9, 0.5, 0.2):
        every = [(stream, side) for stream in _streams("paired") for side in (1, -1)]
        refuted = sum(test.crossing_time(stream, 1 / 6, side, alpha) is not None for stream, side in every)
        assert refuted / 720 <= alpha


def test_the_values_add_up_to_what_was_answered():
    stream = next(iter(_streams("paired")))
    y = SECOND.astype(float) - FIRST
    assert np.allclose(stream.before, np.cumsum(y) - y)
    h = y - stream.value
    # before the first refit: one model for all, so the mean of h from t on is the mean of what follows
    assert np.isclose(stream.expected[5], h[5])
    assert np.allclose(stream.floor[-1], 1 / 6) and np.allclose(stream.ceiling[-1], 1 / 6)
    assert np.isclose(stream.floor[0], (0 - 2) / 6) and np.isclose(stream.ceiling[0], (0 + 3) / 6)


def test_no_answer_can_take_more_than_95_percent_and_no_value_leaves_its_bounds():
    first, second, known = _made(1, 3000, 0.05)
    stream = paired_stream(first, second[:2000], known)
    assert (stream.value >= stream.least - 1e-12).all() and (stream.value <= stream.most + 1e-12).all()
    for mean in (-0.3, 0.0, 0.05, 0.4):
        for side in (1, -1):
            capital = test.log_capital(stream, mean, side)
            assert (np.diff(capital[np.isfinite(capital)]) >= np.log(0.05) - 1e-9).all()


def test_capital_falls_in_the_mean_so_that_what_is_kept_is_an_interval():
    first, second, known = _made(2, 2000, 0.1, 0.6)  # large effects, so that caps bind
    stream = paired_stream(first, second[:1500], known)
    means = np.linspace(-0.9, 0.9, 61)
    up = np.array([test.log_capital(stream, mean, 1) for mean in means])
    down = np.array([test.log_capital(stream, mean, -1) for mean in means])
    with np.errstate(invalid="ignore"):  # infinite less infinite
        assert not (np.diff(up, axis=0) > 1e-9).any() and not (np.diff(down, axis=0) < -1e-9).any()


def test_interval_is_what_the_capital_refutes_and_only_ever_shrinks():
    first, second, known = _made(3, 4000, 0.04)
    truth = second.mean() - first.mean()
    last = (-1.0, 1.0)
    for n in (10, 225, 340, 1000, 2500, 3999):
        low, high = test.confidence_sequence(paired_stream(first, second[:n], known))
        assert last[0] - 1e-5 <= low <= truth + 1e-9 and truth - 1e-9 <= high <= last[1] + 1e-5
        stream = paired_stream(first, second[:n], known)
        assert (
            test.crossing_time(stream, low + 1e-5, 1) is None
            and test.crossing_time(stream, high - 1e-5, -1) is None
        )
        last = low, high
    assert last[1] - last[0] < 0.01


@pytest.mark.parametrize("gain", [0.0, 0.03])
def test_after_all_questions_the_interval_is_the_difference_itself(gain):
    first, second, known = _made(4, 500, gain)
    truth = float(second.mean() - first.mean())
    decision = test.decide_stream(paired_stream(first, second, known), margin=None)
    assert decision.low == pytest.approx(truth, abs=1e-12) == decision.high
    right = test.confidence_sequence(accuracy_stream(second, known))
    assert right == pytest.approx((second.mean(), second.mean()), abs=1e-12)


def test_the_last_answer_is_arithmetic_and_no_evidence():
    first, second, known = _made(3, 180, 0.0)
    second = first.copy()
    second[179] = not first[179]  # the last one asked
    stream = paired_stream(first, second, known)
    mean = (second.mean() - first.mean()).item()
    assert mean != 0 and abs(mean) < 0.02
    for margin, verdict in ((None, "undecided"), (abs(mean) / 2, "undecided"), (0.02, "equal")):
        decision = test.decide_stream(stream, margin=margin)
        assert decision.verdict == verdict and decision.low == pytest.approx(mean)
        assert decision.e_value < 20 and decision.p_value > 0.05
    assert test.crossing_time(stream, 0.0, 1 if mean > 0 else -1) == 180  # which is what must not count


def test_no_difference_at_all_is_equal_at_the_end_and_never_better():
    first = np.random.default_rng(0).random(300) < 0.5
    known = KnownQuestions(300)
    decision = test.decide_stream(paired_stream(first, first, known), margin=None)
    assert (decision.verdict, decision.decided_at, decision.p_value) == ("equal", 300, 1.0)
    soon = test.decide_stream(paired_stream(first, first, known), margin=0.05)
    assert soon.verdict == "equal" and soon.decided_at < 300


def test_verdict_names_the_better_run_and_the_question_at_which_it_stood():
    first, second, known = _made(5, 6000, 0.1)
    better = test.decide_stream(paired_stream(first, second[:3000], known))
    worse = test.decide_stream(paired_stream(second, first[:3000], known))
    assert better.verdict == "better" and worse.verdict == "worse" and better.low > 0 > worse.high
    assert better.p_value <= 0.05 and better.e_value >= 20
    # the verdict is a function of the answers in order: one answer fewer, and it does not stand yet
    at = better.decided_at
    assert test.decide_stream(paired_stream(first, second[:at], known)).decided_at == at
    before = test.decide_stream(paired_stream(first, second[: at - 1], known))
    assert (before.verdict, before.decided_at) == ("undecided", None) and before.p_value > 0.05


def test_a_first_run_known_in_full_decides_sooner_than_one_that_is_asked_along():
    needed = {"known": [], "asked": []}
    for seed in range(6):
        first, second, known = _made(100 + seed, 8000, 0.04, 0.3)
        for name, one in (("known", first), ("asked", first[:7999])):
            needed[name].append(test.first_verdict(paired_stream(one, second[: len(one)], known))[1] or 8000)
    assert sum(needed["known"]) < sum(needed["asked"])


def test_equal_needs_both_sides_of_the_margin():
    first, second, known = _made(6, 12000, 0.0, 0.1)
    stream = paired_stream(first, second[:9000], known)
    decision = test.decide_stream(stream, margin=0.03)
    assert decision.verdict == "equal" and -0.03 <= decision.low <= decision.high <= 0.03
    assert test.decide_stream(paired_stream(first, second[:100], known), margin=0.03).verdict == "undecided"


def test_exact_nulls_are_decided_in_less_than_five_percent_and_covered():
    decided = refuted = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        first = draw.random(2000) < 0.6
        second = first.copy()
        second[draw.choice(np.flatnonzero(first), 150, replace=False)] = False
        second[draw.choice(np.flatnonzero(~first), 150, replace=False)] = True
        stream = paired_stream(first, second, KnownQuestions(2000, draw.normal(size=2000)))
        decided += test.first_verdict(stream, margin=None)[0] in ("better", "worse")
        refuted += any(test.crossing_time(stream, 0.0, side) is not None for side in (1, -1))
    assert decided == refuted <= 10


def test_accuracy_is_covered_at_every_size_and_narrows():
    missed = 0
    for seed in range(60):
        _, second, known = _made(seed, 3000, 0.0)
        stream = accuracy_stream(second, known)
        missed += any(test.crossing_time(stream, float(second.mean()), side) is not None for side in (1, -1))
    assert missed <= 3
    ends = [test.confidence_sequence(accuracy_stream(second[:n], known)) for n in (100, 1000, 2900)]
    widths = [high - low for low, high in ends]
    assert widths[0] > widths[1] > widths[2] and widths[2] < 0.02


def test_nothing_asked_says_nothing():
    decision = test.decide_stream(paired_stream(np.ones(5, bool), np.zeros(0, bool), KnownQuestions(5)))
    assert (decision.verdict, decision.decided_at, decision.p_value) == ("undecided", None, 1.0)
    assert (decision.low, decision.high) == (-1.0, 1.0)


def test_a_split_alpha_asks_for_more():
    first, second, known = _made(7, 6000, 0.06)
    stream = paired_stream(first, second, known)
    alone, of_four = (test.first_verdict(stream, alpha)[1] for alpha in (0.05, 0.05 / 4))
    assert alone < of_four


def test_stream_is_a_record():
    assert isinstance(paired_stream(FIRST, SECOND, KnownQuestions(6)), AnswerStream)
