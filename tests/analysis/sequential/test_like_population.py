"""The early test for questions like these does not find the luck of these."""

import numpy as np

from kmmlu_fast.analysis.sequential.betting import first_verdict
from kmmlu_fast.analysis.sequential.control_variate import AnswerStream, KnownQuestions, paired_stream
from kmmlu_fast.analysis.sequential.like_population import decide_like


def stream(random: np.random.Generator, total: int, gain: float = 0.0, ahead: bool = True) -> AnswerStream:
    """Two draws of one model, which is sure of three quarters of the questions."""
    share = random.beta(1.2, 1.2, total)
    sure = random.random(total) < 0.75
    known = random.random(total) < share
    sides = [np.where(sure, known, random.random(total) < share) for _ in range(2)]
    second = sides[1] | (random.random(total) < 2 * gain)
    return paired_stream(sides[0], second, KnownQuestions(total, ease=share), ahead=ahead)


def test_draws_of_one_model_are_not_called_better_or_worse() -> None:
    random = np.random.default_rng(0)
    like = these = 0
    for turn in range(200):
        answers = stream(random, 1500, ahead=turn % 2 == 0)
        like += decide_like(answers, 0.05, 0.01).verdict in ("better", "worse")
        these += first_verdict(answers, 0.05, 0.01)[0] in ("better", "worse")
    assert like <= 200 * 0.05 + 2 * (200 * 0.05 * 0.95) ** 0.5
    assert these > 200 * 0.1  # on these very questions they do differ


def test_a_real_gain_is_found_and_the_bounds_hold() -> None:
    random = np.random.default_rng(1)
    for _ in range(10):
        decision = decide_like(stream(random, 6000, gain=0.04), 0.05, 0.01)
        assert decision.verdict == "better" and (decision.decided_at or 0) < 3000
        assert decision.population == "like" and decision.low > 0 and decision.p_value < 0.05


def test_nothing_is_said_after_a_handful_of_answers() -> None:
    known = KnownQuestions(100)
    few = paired_stream(np.zeros(100, dtype=bool), np.ones(20, dtype=bool), known, ahead=True)
    decision = decide_like(few, 0.05, 0.01)
    assert decision.verdict == "undecided" and (decision.low, decision.high) == (-1.0, 1.0)


def nearly_alike(random: np.random.Generator, total: int, gain: float) -> AnswerStream:
    first = random.random(total) < 0.6
    second = np.where(random.random(total) < 0.01, random.random(total) < 0.6, first)
    return paired_stream(first, second | (random.random(total) < 2.5 * gain), KnownQuestions(total))


def test_equal_is_said_within_the_margin_and_of_nothing_else() -> None:
    random = np.random.default_rng(3)
    alike = [decide_like(nearly_alike(random, 8000, 0.0), 0.05, 0.02) for _ in range(5)]
    assert [decision.verdict for decision in alike] == ["equal"] * 5
    assert all(-0.02 < decision.low <= decision.high < 0.02 for decision in alike)
    apart = [decide_like(nearly_alike(random, 8000, 0.04), 0.05, 0.02).verdict for _ in range(5)]
    assert apart == ["better"] * 5
    unasked = decide_like(nearly_alike(random, 8000, 0.0), 0.05, None)
    assert unasked.verdict != "equal"


def test_bounds_that_contradict_each_other_meet_between_them() -> None:
    """A stream that turns round, as no random order does: its running bounds cross."""
    first = np.concatenate([np.zeros(1500, dtype=bool), np.ones(6000, dtype=bool)])
    decision = decide_like(paired_stream(first, ~first, KnownQuestions(len(first))), 0.05, 0.01)
    assert decision.verdict == "better" and decision.low == decision.high
    assert -1.0 <= decision.low <= 1.0
