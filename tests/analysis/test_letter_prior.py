"""Gain decomposition against hand-computed numbers and constructed extremes."""

import numpy as np
import pytest

from kmmlu_fast.analysis import letter_prior as d


def habits(key: list[str], first: list[str | None], second: list[str | None]) -> d.Decomposition:
    codes = d.as_codes(list(key))
    strata = np.zeros(len(codes), dtype=np.int64)
    return d.decompose(codes, strata, d.RunLetters(d.as_codes(first)), d.RunLetters(d.as_codes(second)))


def test_letter_habit_by_hand() -> None:
    key = d.as_codes(["A", "B", "B", "D", "D", "D", "D", "D"])
    habit = d.letter_habit(key, d.RunLetters(d.as_codes(["D", "B", "D", "D", "D", None, "A", "x"])))
    assert habit.shares == pytest.approx((1 / 8, 1 / 8, 0, 4 / 8))
    assert habit.unparsed == pytest.approx(2 / 8)
    assert habit.recall == (0.0, 0.5, None, 0.4)  # the key never has C
    assert habit.balanced_accuracy == pytest.approx(0.9 / 3)
    assert habit.expected_accuracy == pytest.approx((1 * 1 + 1 * 2 + 0 + 4 * 5) / 64)
    assert habit.accuracy == pytest.approx(3 / 8)
    assert habit.matched_accuracy is None


def test_marginals_a_constant_answer_is_all_prior() -> None:
    # key 1/3/3/3; uniform guessing spread evenly over each letter scores 25 %, always D 30 %
    key = list("ABBBCCCDDD") * 4
    uniform = ["ABCD"[(i // 10)] for i in range(40)]
    split = habits(key, uniform, ["D"] * 40)
    assert split.method == "marginals"
    assert split.first.accuracy == pytest.approx(0.25) and split.second.accuracy == pytest.approx(0.30)
    assert split.letter_prior.low < 0.05 < split.letter_prior.high
    assert split.letter_prior.value == pytest.approx(0.05) and split.remaining.value == pytest.approx(0.0)


def test_marginals_same_habit_is_all_remaining() -> None:
    split = habits(list("ABCD"), list("BADC"), list("ABCD"))
    assert split.letter_prior.value == pytest.approx(0.0) and split.remaining.value == pytest.approx(1.0)


def test_offsets_reach_the_wanted_shares() -> None:
    random = np.random.default_rng(0)
    logprobs = random.normal(size=(4000, 4)) + np.array([3.0, 0, 0, -2])
    wanted = np.array([0.1, 0.3, 0.3, 0.3])
    offsets = d.prior_offsets(logprobs, wanted)
    assert offsets.sum() == pytest.approx(0.0, abs=1e-9)
    assert d.letter_shares((logprobs + offsets).argmax(axis=1)) == pytest.approx(wanted, abs=0.003)


def test_a_bias_added_to_the_same_knowledge_is_wholly_letter_prior() -> None:
    random = np.random.default_rng(1)
    key = random.choice(4, size=3000, p=[0.1, 0.3, 0.3, 0.3])
    knowledge = random.normal(size=(3000, 4))
    knowledge[np.arange(3000), key] += 1.0
    first, second = knowledge + np.array([2.0, 0, 0, 0]), knowledge + np.array([-1.0, 0, 0, 0])
    letters = first.argmax(axis=1), second.argmax(axis=1)
    shares = d.letter_shares(key)
    runs = [d.RunLetters(x, d.matched_letters(x, lp, shares)) for x, lp in zip(letters, (first, second), strict=True)]
    split = d.decompose(key, np.arange(3000) % 3, *runs)
    assert split.method == "logprobs"
    assert split.difference > 0.1  # the biased base looks far worse
    assert split.remaining.value == pytest.approx(0.0, abs=0.002)
    assert split.letter_prior.value == pytest.approx(split.difference, abs=0.002)


def test_knowledge_under_the_same_bias_remains() -> None:
    random = np.random.default_rng(2)
    key = random.choice(4, size=3000, p=[0.1, 0.3, 0.3, 0.3])
    noise, bias = random.normal(size=(3000, 4)), np.array([0.2, 0, 0, -0.2])
    runs = []
    for strength in (0.5, 1.5):
        logprobs = noise + bias
        logprobs[np.arange(3000), key] += strength
        letters = logprobs.argmax(axis=1)
        runs.append(d.RunLetters(letters, d.matched_letters(letters, logprobs, d.letter_shares(key))))
    split = d.decompose(key, np.zeros(3000, dtype=np.int64), *runs)
    assert split.remaining.value > 0.9 * split.difference > 0.1
    assert split.remaining.significant


def test_too_few_logprobs_are_not_used() -> None:
    logprobs = np.log(np.full((10, 4), 0.25))
    logprobs[:2] = np.nan
    assert d.matched_letters(np.zeros(10, dtype=np.int64), logprobs, np.full(4, 0.25)) is None
    assert d.matched_letters(np.zeros(10, dtype=np.int64), None, np.full(4, 0.25)) is None


def test_marginals_interval_covers_what_a_bootstrap_gives() -> None:
    random = np.random.default_rng(3)
    key = random.choice(4, size=600, p=[0.1, 0.3, 0.3, 0.3])
    first = np.where(random.random(600) < 0.4, key, random.choice(4, size=600, p=[0.7, 0.1, 0.1, 0.1]))
    second = np.where(random.random(600) < 0.5, key, random.choice(4, size=600, p=[0.1, 0.2, 0.3, 0.4]))
    whole = d.decompose(key, np.zeros(600, dtype=np.int64), d.RunLetters(first), d.RunLetters(second))
    remains = []
    for _ in range(1500):
        i = random.integers(0, 600, 600)
        gain = (second[i] == key[i]).mean() - (first[i] == key[i]).mean()
        remains.append(gain - (d.letter_shares(second[i]) - d.letter_shares(first[i])) @ d.letter_shares(key[i]))
    low, high = np.quantile(remains, [0.025, 0.975])
    assert (whole.remaining.low, whole.remaining.high) == pytest.approx((low, high), abs=0.006)


def test_answers_that_become_readable_are_no_letter_prior() -> None:
    key = list("ABCD") * 10
    unparsed: list[str | None] = [None] * 20 + key[20:]  # type: ignore[list-item]
    split = habits(key, unparsed, list(key))
    assert split.difference == pytest.approx(0.5)
    assert split.letter_prior.value == pytest.approx(0.0) and split.remaining.value == pytest.approx(0.5)
