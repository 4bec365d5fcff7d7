"""Gain decomposition against hand-computed numbers and constructed extremes."""

import numpy as np
import pytest

from kmmlu_fast.analysis.letter_bias import letter_prior as d
from kmmlu_fast.analysis.letter_bias.offsets import fit_prior_offsets, match_letter_shares


def habits(key: list[str], first: list[str | None], second: list[str | None]) -> d.Decomposition:
    codes = d.letter_codes(list(key))
    strata = np.zeros(len(codes), dtype=np.int64)
    return d.decompose_difference(
        codes, strata, d.RunLetters(d.letter_codes(first)), d.RunLetters(d.letter_codes(second))
    )


def test_letter_habit_by_hand() -> None:
    key = d.letter_codes(["A", "B", "B", "D", "D", "D", "D", "D"])
    habit = d.letter_habit(key, d.RunLetters(d.letter_codes(["D", "B", "D", "D", "D", None, "A", "x"])))
    assert habit.shares == pytest.approx((1 / 8, 1 / 8, 0, 4 / 8))
    assert habit.unparsed == pytest.approx(2 / 8)
    assert habit.recall == (0.0, 0.5, None, 0.4)  # the key never has C
    assert habit.balanced_accuracy == pytest.approx(0.9 / 3)
    assert habit.expected_accuracy == pytest.approx((1 * 1 + 1 * 2 + 0 + 4 * 5) / 64)
    assert habit.accuracy == pytest.approx(3 / 8)
    assert habit.matched_accuracy is None


def test_a_constant_answer_is_all_prior_by_both_models() -> None:
    # key 1/3/3/3; uniform guessing spread evenly over each letter scores 25 %, always D 30 %
    key = list("ABBBCCCDDD") * 40
    uniform = ["ABCD"[(i // 10) % 4] for i in range(400)]
    split = habits(key, uniform, ["D"] * 400)
    assert split.method == "letters" and [part.model for part in split.splits] == ["mixture", "choice"]
    assert split.first.accuracy == pytest.approx(0.25) and split.second.accuracy == pytest.approx(0.30)
    for part in split.splits:
        assert part.letter_prior.value == pytest.approx(
            0.05, abs=0.003
        ) and part.remaining.value == pytest.approx(0.0, abs=0.003)


def test_the_same_habit_is_all_remaining() -> None:
    split = habits(list("ABCD") * 60, list("BADC") * 60, list("ABCD") * 60)
    for part in split.splits:
        assert part.letter_prior.value == pytest.approx(
            0.0, abs=0.01
        ) and part.remaining.value == pytest.approx(1.0, abs=0.01)


def test_more_knowledge_under_an_unchanged_collapse_is_no_letter_prior() -> None:
    """The former formula called 1.51 pp of this letter prior."""
    key, random = np.repeat(np.arange(4), [1000, 3000, 3000, 3000]), np.random.default_rng(0)
    habit = np.array([0.7, 0.1, 0.1, 0.1])
    runs = []
    for known in (0.35, 0.45):
        table = known * np.eye(4) + (1 - known) * habit
        runs.append(d.RunLetters(np.array([random.choice(4, p=table[code]) for code in key])))
    part = d.decompose_difference(key, np.zeros(len(key), dtype=np.int64), runs[0], runs[1]).splits[0]
    assert part.model == "mixture" and part.letter_prior.value == pytest.approx(0.0, abs=0.004)
    assert part.remaining.significant and part.remaining.value > 0.06


@pytest.mark.parametrize(("questions", "method"), [(40, "none"), (199, "none"), (200, "letters")])
def test_few_questions_are_not_split(questions: int, method: str) -> None:
    key = (list("ABCD") * 50)[:questions]
    split = habits(key, key[::-1], key)
    assert split.method == method
    models = [part.model for part in split.splits]
    assert models == ([] if method == "none" else ["mixture", "choice"])
    assert (split.prior_range is None) == (method == "none")


def test_parts_add_up() -> None:
    random = np.random.default_rng(4)
    key = random.choice(4, size=500, p=[0.1, 0.3, 0.3, 0.3])
    letters = [
        np.where(random.random(500) < 0.5, key, random.choice(5, size=500, p=[0.3, 0.2, 0.2, 0.2, 0.1]) - 1)
        for _ in range(2)
    ]
    split = d.decompose_difference(
        key, np.arange(500) % 7, d.RunLetters(letters[0]), d.RunLetters(letters[1])
    )
    for part in split.splits:
        assert part.letter_prior.value + split.reading + part.remaining.value == pytest.approx(
            split.difference
        )


def test_offsets_reach_the_wanted_shares() -> None:
    random = np.random.default_rng(0)
    logprobs = random.normal(size=(4000, 4)) + np.array([3.0, 0, 0, -2])
    wanted = np.array([0.1, 0.3, 0.3, 0.3])
    offsets = fit_prior_offsets(logprobs, wanted)
    assert offsets.sum() == pytest.approx(0.0, abs=1e-9)
    assert d.letter_shares((logprobs + offsets).argmax(axis=1)) == pytest.approx(wanted, abs=0.003)


def test_a_bias_added_to_the_same_knowledge_is_wholly_letter_prior() -> None:
    random = np.random.default_rng(1)
    key = random.choice(4, size=3000, p=[0.1, 0.3, 0.3, 0.3])
    knowledge = random.normal(size=(3000, 4))
    knowledge[np.arange(3000), key] += 1.0
    first, second = knowledge + np.array([2.0, 0, 0, 0]), knowledge + np.array([-1.0, 0, 0, 0])
    letters = first.argmax(axis=1), second.argmax(axis=1)
    runs = [
        d.RunLetters(x, match_letter_shares(key, x, lp))
        for x, lp in zip(letters, (first, second), strict=True)
    ]
    split = d.decompose_difference(key, np.arange(3000) % 3, runs[0], runs[1])
    assert split.method == "logprobs"
    assert split.difference > 0.1  # the biased base looks far worse
    assert split.splits[0].remaining.value == pytest.approx(0.0, abs=0.002)
    assert split.splits[0].letter_prior.value == pytest.approx(split.difference, abs=0.002)


def test_knowledge_under_the_same_bias_remains() -> None:
    random = np.random.default_rng(2)
    key = random.choice(4, size=3000, p=[0.1, 0.3, 0.3, 0.3])
    noise, bias = random.normal(size=(3000, 4)), np.array([0.2, 0, 0, -0.2])
    runs = []
    for strength in (0.5, 1.5):
        logprobs = noise + bias
        logprobs[np.arange(3000), key] += strength
        letters = logprobs.argmax(axis=1)
        runs.append(d.RunLetters(letters, match_letter_shares(key, letters, logprobs)))
    split = d.decompose_difference(key, np.zeros(3000, dtype=np.int64), runs[0], runs[1])
    assert split.splits[0].remaining.value > 0.9 * split.difference > 0.1
    assert split.splits[0].remaining.significant


def test_too_few_logprobs_are_not_used() -> None:
    logprobs = np.log(np.full((10, 4), 0.25))
    logprobs[:2] = np.nan
    assert match_letter_shares(np.zeros(10, dtype=np.int64), np.zeros(10, dtype=np.int64), logprobs) is None
    assert match_letter_shares(np.zeros(10, dtype=np.int64), np.zeros(10, dtype=np.int64), None) is None


def test_intervals_cover_what_a_bootstrap_gives() -> None:
    """By letters: the delta method against refitting both models to resampled questions."""
    random = np.random.default_rng(3)
    key = random.choice(4, size=600, p=[0.1, 0.3, 0.3, 0.3])
    first = np.where(random.random(600) < 0.4, key, random.choice(4, size=600, p=[0.7, 0.1, 0.1, 0.1]))
    second = np.where(random.random(600) < 0.5, key, random.choice(4, size=600, p=[0.1, 0.2, 0.3, 0.4]))
    one = np.zeros(600, dtype=np.int64)
    whole = d.decompose_difference(key, one, d.RunLetters(first), d.RunLetters(second))
    drawn = []
    for _ in range(300):
        i = random.integers(0, 600, 600)
        resampled = d.decompose_difference(key[i], one, d.RunLetters(first[i]), d.RunLetters(second[i]))
        drawn.append([part.remaining.value for part in resampled.splits])
    for place, part in enumerate(whole.splits):
        low, high = np.quantile([values[place] for values in drawn], [0.025, 0.975])
        assert (part.remaining.low, part.remaining.high) == pytest.approx((low, high), abs=0.012)


def test_the_offsets_own_error_is_in_the_interval() -> None:
    """By log-probabilities: against refitting the offsets to resampled questions."""
    random = np.random.default_rng(5)
    key = random.choice(4, size=300, p=[0.1, 0.3, 0.3, 0.3])
    noise = random.normal(size=(300, 4))
    runs = []
    for strength, bias in ((0.6, 2.0), (1.0, -0.5)):
        logprobs = noise + random.normal(size=(300, 4)) + np.array([bias, 0, 0, 0])
        logprobs[np.arange(300), key] += strength
        runs.append(logprobs)

    def split(i: np.ndarray) -> d.HabitSplit:
        one, other = (
            d.RunLetters(x[i].argmax(axis=1), match_letter_shares(key[i], x[i].argmax(axis=1), x[i]))
            for x in runs
        )
        return d.decompose_difference(key[i], np.zeros(len(i), dtype=np.int64), one, other).splits[0]

    whole = split(np.arange(300))
    drawn = [split(random.integers(0, 300, 300)) for _ in range(300)]
    for name in ("letter_prior", "remaining"):
        low, high = np.quantile([getattr(part, name).value for part in drawn], [0.025, 0.975])
        part = getattr(whole, name)
        assert part.high - part.low == pytest.approx(high - low, rel=0.25)


def test_a_subjects_own_habit_is_matched_too() -> None:
    """Two subjects with opposite keys: a run that learns each one's letter gains nothing at
    each subject's own shares.
    """
    random = np.random.default_rng(6)
    strata = np.repeat([0, 1], 4500)
    key = np.where(
        strata == 0,
        random.choice(4, size=9000, p=[0.7, 0.1, 0.1, 0.1]),
        random.choice(4, size=9000, p=[0.1, 0.1, 0.1, 0.7]),
    )
    noise = random.normal(size=(9000, 4))
    noise[np.arange(9000), key] += 0.5
    habit = np.zeros((9000, 4))
    habit[strata == 0, 0] = habit[strata == 1, 3] = 1.5
    runs = [
        d.RunLetters(x.argmax(axis=1), match_letter_shares(key, x.argmax(axis=1), x, strata))
        for x in (noise, noise + habit)
    ]
    result = d.decompose_difference(key, strata, runs[0], runs[1])
    assert result.splits[0].remaining.value > 0.05  # the global offsets do not see it
    assert result.by_subject is not None and abs(result.by_subject.value) < 0.02


def test_a_subjects_own_habit_is_seen_in_letters_alone_by_either_model() -> None:
    """Five subjects, each with its own key; the second run learns the keys' shares and nothing else. The
    mixture model alone would find that it lost 1 to 3 pp of knowledge.
    """
    random = np.random.default_rng(7)
    keys = [(0.6, 0.2, 0.1, 0.1), (0.1, 0.1, 0.2, 0.6), (0.2, 0.4, 0.3, 0.1)]
    shares = np.array([*keys, (0.1, 0.3, 0.5, 0.1), (0.05, 0.45, 0.3, 0.2)])
    strata = np.repeat(np.arange(5), 6000)
    key = np.concatenate([random.choice(4, size=6000, p=row) for row in shares])
    rows = np.arange(len(key))

    def answer(knowledge: float, habit: float) -> d.RunLetters:
        values = random.normal(size=(len(key), 4)) + habit * shares[strata]
        values[rows, key] += knowledge
        return d.RunLetters(values.argmax(axis=1))

    base = answer(1.0, 0.0)
    learned = d.decompose_difference(key, strata, base, answer(1.0, 3.0))
    assert learned.by_subject is not None and learned.by_subject.low <= 0.0 <= learned.by_subject.high
    knows_more = d.decompose_difference(key, strata, base, answer(1.6, 3.0))
    assert knows_more.by_subject is not None and knows_more.by_subject.low > 0.1


def test_answers_that_become_readable_are_neither_prior_nor_knowledge() -> None:
    key = list("ABCD") * 100
    unparsed: list[str | None] = [None] * 200 + key[200:]
    split = habits(key, unparsed, list(key))
    assert split.difference == pytest.approx(0.5) and split.reading == pytest.approx(0.5)
    for part in split.splits:
        assert part.letter_prior.value == pytest.approx(
            0.0, abs=0.01
        ) and part.remaining.value == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("options", [2, 3, 5, 10])
def test_any_constant_number_of_options_tells_habit_from_knowledge(options: int) -> None:
    """Half of what is planted is habit (the last letter, which the key has too often), half is knowledge."""
    random = np.random.default_rng(options)
    shares = np.arange(1.0, options + 1)
    shares /= shares.sum()
    key = np.repeat(np.arange(options), np.round(6000 * shares).astype(int))
    noise = random.normal(size=(len(key), options))

    def run(skill: float, habit: float) -> d.RunLetters:
        values = noise + skill * np.eye(options)[key] + habit * (np.arange(options) == options - 1)
        values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
        letters = values.argmax(axis=1)
        return d.RunLetters(letters, match_letter_shares(key, letters, values))

    strata = np.zeros(len(key), dtype=np.int64)
    base, habit, skilled = run(0.3, -0.5), run(0.3, 0.5), run(1.3, -0.5)
    result = d.decompose_difference(key, strata, base, habit, options=options)
    assert result.method == "logprobs" and len(result.first.shares) == options
    (part,) = result.splits
    assert result.difference > 0.01 and part.letter_prior.value == pytest.approx(result.difference, abs=0.012)
    assert not part.remaining.significant
    (part,) = d.decompose_difference(key, strata, base, skilled, options=options).splits
    assert part.remaining.significant and part.remaining.value > 0.1
    by_letters = [d.RunLetters(one.letters) for one in (base, habit)]
    result = d.decompose_difference(key, strata, by_letters[0], by_letters[1], options=options)
    assert [one.model for one in result.splits] == ["mixture", "choice"]
    for one in result.splits:
        total = one.letter_prior.value + result.reading + one.remaining.value
        assert total == pytest.approx(result.difference) and one.letter_prior.value > result.difference / 2


def test_four_options_are_the_default() -> None:
    key = np.arange(400) % 4
    letters = [np.roll(key, turn) for turn in (1, 2)]
    runs = [d.RunLetters(codes) for codes in letters]
    strata = np.zeros(400, dtype=np.int64)
    both = (
        d.decompose_difference(key, strata, runs[0], runs[1]),
        d.decompose_difference(key, strata, runs[0], runs[1], options=4),
    )
    assert both[0] == both[1]
