"""Paired statistics against numbers computed by hand."""

import numpy as np
import polars as pl
import pytest

from kmmlu_fast.analysis import paired


def pairs_of(*subjects: tuple[str, str, int, int, int, int]) -> pl.DataFrame:
    """(subject, supercategory, both right, b, c, both wrong) -> pairs."""
    rows = []
    for subject, group, both, b, c, neither in subjects:
        cells = [(True, True)] * both + [(True, False)] * b + [(False, True)] * c + [(False, False)] * neither
        rows += [
            {"subject": subject, "supercategory": group, "first": one, "second": two} for one, two in cells
        ]
    return pl.DataFrame(rows)


def test_mcnemar_midp_by_hand() -> None:
    # b=1, c=4: 2 * (1 + 5) / 32 - 5 / 32 = 7 / 32
    assert paired.mcnemar_midp(1, 4) == pytest.approx(7 / 32)
    # b=0, c=5: 2 * 1 / 32 - 1 / 32 = 1 / 32
    assert paired.mcnemar_midp(0, 5) == pytest.approx(1 / 32)
    # b=c: 1; nothing differs: 1
    assert paired.mcnemar_midp(3, 3) == pytest.approx(1.0)
    assert paired.mcnemar_midp(0, 0) == 1.0
    assert paired.mcnemar_midp(4, 1) == paired.mcnemar_midp(1, 4)


def test_mcnemar_midp_agrees_with_statsmodels_exact_test() -> None:
    from scipy.stats import binom
    from statsmodels.stats.contingency_tables import mcnemar

    exact = mcnemar([[10, 12], [25, 5]], exact=True).pvalue
    assert paired.mcnemar_midp(12, 25) == pytest.approx(exact - binom.pmf(12, 37, 0.5))


def test_corrections_by_hand() -> None:
    values = np.array([0.01, 0.04, 0.03])
    # Holm: 0.01*3, then 0.03*2, then max(0.06, 0.04*1)
    assert paired.adjust_p_values(values, "holm") == pytest.approx([0.03, 0.06, 0.06])
    # Benjamini-Hochberg: 0.01*3/1, 0.04*3/3, min(0.03*3/2, 0.04)
    assert paired.adjust_p_values(values, "fdr_bh") == pytest.approx([0.03, 0.04, 0.04])
    assert len(paired.adjust_p_values(np.array([]), "holm")) == 0


def test_paired_interval_by_hand() -> None:
    # b=1, c=4, n=20: p12=2/22, p21=5/22, centre=3/22, half=1.96*sqrt((7/22-(3/22)^2)/22)
    low, high = paired.paired_interval(np.array([1]), np.array([4]), np.array([20]))
    half = 1.959964 * np.sqrt((7 / 22 - 9 / 484) / 22)
    assert low[0] == pytest.approx(3 / 22 - half, abs=1e-6)
    assert high[0] == pytest.approx(3 / 22 + half, abs=1e-6)


def test_no_change_still_has_a_width() -> None:
    low, high = paired.paired_interval(np.array([0]), np.array([0]), np.array([100]))
    assert low[0] < 0 < high[0]


def test_minimum_detectable_effect_solves_connors_formula() -> None:
    effect = paired.minimum_detectable_effect(1000, 0.2)
    assert effect is not None
    needed = (1.959964 * np.sqrt(0.2) + 0.841621 * np.sqrt(0.2 - effect**2)) ** 2 / effect**2
    assert needed == pytest.approx(1000, rel=1e-5)
    # the larger the subject, the smaller the effect it can show
    smaller = paired.minimum_detectable_effect(100, 0.2)
    assert smaller is not None and smaller > effect
    # few changes: all must go one way, so the share of discordant questions is the effect itself
    lone = paired.minimum_detectable_effect(100, 0.0)
    assert lone is not None
    assert (1.959964 * lone**0.5 + 0.841621 * (lone - lone**2) ** 0.5) ** 2 / lone**2 == pytest.approx(
        100, rel=1e-5
    )
    assert paired.minimum_detectable_effect(2, 0.5) is None


def test_micro_rises_and_macro_falls() -> None:
    # Law: 100 questions, 50 -> 60 right. Math: 10 questions, 8 -> 4 right.
    counts = paired.subject_counts(pairs_of(("Law", "HUMSS", 45, 5, 15, 35), ("Math", "STEM", 4, 4, 0, 2)))
    micro, macro = paired.micro_difference(counts), paired.macro_difference(counts)
    assert (micro.n, micro.b, micro.c) == (110, 9, 15)
    assert (micro.first, micro.second, micro.difference) == pytest.approx((58 / 110, 64 / 110, 6 / 110))
    assert (macro.first, macro.second, macro.difference) == pytest.approx((0.65, 0.5, -0.15))
    # both cells: binomial mid-p of 9 in 24
    assert micro.p_value == pytest.approx(float(paired.mcnemar_midp(9, 15)))
    assert macro.p_value is None
    # Variance within a subject divides by n - 1: (n * share of changes - n * difference^2) / (n - 1)
    law, math = (20 - 100 * 0.1**2) / 99, (4 - 10 * 0.4**2) / 9
    parts = np.array([(100 / 110) ** 2 * law / 100, (10 / 110) ** 2 * math / 10])
    df = parts.sum() ** 2 / (parts**2 / np.array([99, 9])).sum()
    from scipy.stats import t

    half = t.ppf(0.975, df) * parts.sum() ** 0.5
    assert (micro.low, micro.high) == pytest.approx((6 / 110 - half, 6 / 110 + half))
    assert macro.low < -0.15 < macro.high and macro.significant == (macro.high < 0)


def test_one_question_a_subject_still_has_a_width() -> None:
    subjects = [(f"S{i}", "STEM", 1, 0, 0, 0) for i in range(40)] + [
        (f"T{i}", "STEM", 0, i % 2, 1 - i % 2, 0) for i in range(20)
    ]
    counts = paired.subject_counts(pairs_of(*subjects))
    for difference in (paired.micro_difference(counts), paired.macro_difference(counts)):
        assert difference.difference == 0.0
        # 20 changes in 60: standard deviation sqrt(20 / 59), so the half width is about 2.0 * sqrt(20 / 59 /
        # 60)
        assert difference.high == pytest.approx(
            2.0 * (20 / 59 / 60) ** 0.5, rel=0.01
        ) and difference.low == pytest.approx(-difference.high)
        assert not difference.significant


def test_micro_of_equal_samples_is_weighted_to_the_full_sizes() -> None:
    counts = paired.subject_counts(
        pairs_of(("Law", "HUMSS", 10, 2, 10, 10), ("Patent", "Other", 10, 10, 2, 10))
    )
    assert paired.micro_difference(counts).difference == 0.0
    weights = paired.subject_size_weights(counts, {"Law": 900, "Patent": 100})
    assert weights == pytest.approx([0.9, 0.1])
    micro = paired.micro_difference(counts, weights)
    assert micro.difference == pytest.approx(0.8 * 8 / 32) and micro.weighted
    # McNemar's score test over strata: z = sum w (c - b) / n / sqrt(sum w^2 (b + c) / n^2)
    z = 0.8 * 8 / ((0.9**2 + 0.1**2) * 12) ** 0.5
    from scipy.stats import norm

    assert micro.p_value == pytest.approx(2 * norm.sf(z), abs=1e-6)
    assert (
        paired.subject_size_weights(counts, {"Law": 32, "Patent": 32}) is None
        and paired.subject_size_weights(counts, {}) is None
    )


def test_of_these_questions_nothing_is_estimated_once_all_are_asked() -> None:
    counts = paired.subject_counts(
        pairs_of(("Law", "HUMSS", 30, 20, 25, 25), ("Math", "STEM", 20, 10, 9, 20))
    )
    every, half = (
        paired.asked_share(counts, {"Law": 100, "Math": 59}),
        paired.asked_share(counts, {"Law": 200, "Math": 118}),
    )
    whole, part, like = (paired.micro_difference(counts, None, asked) for asked in (every, half, None))
    assert whole.low == whole.high == whole.difference and whole.significant
    assert part.high - part.low == pytest.approx((like.high - like.low) * 0.5**0.5)
    subjects = paired.subject_differences(counts, every)
    assert (subjects["low"] == subjects["high"]).all()


def test_corrections_equal_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    values = np.random.default_rng(0).random(45) ** 3
    for method in ("holm", "fdr_bh"):
        assert paired.adjust_p_values(values, method) == pytest.approx(
            multipletests(values, method=method)[1], abs=1e-12
        )
    with pytest.raises(ValueError, match="holm and fdr_bh"):
        paired.adjust_p_values(values, "none")


def test_the_effect_a_subject_shows_is_that_of_holms_first_step() -> None:
    pairs = pairs_of(*[(f"S{i:02d}", "STEM", 500, 75, 75, 350) for i in range(45)])
    effect = paired.subject_differences(paired.subject_counts(pairs))["minimum_detectable_effect"][0]
    assert effect == pytest.approx(0.0502, abs=0.0001)  # 1,000 questions, discordance .15, alpha .05 / 45
    assert paired.minimum_detectable_effect(1000, 0.25, 0.05 / 45) == pytest.approx(0.0648, abs=0.0001)
    assert paired.minimum_detectable_effect(1000, 0.15) == pytest.approx(0.0343, abs=0.0001)


def test_a_claim_needs_its_interval_too() -> None:
    difference = paired.PairedDifference(
        n=20,
        first=0.5,
        second=0.6,
        difference=0.1,
        low=-0.01,
        high=0.21,
        b=0,
        c=2,
        p_value=0.04,
        error=0.056,
        inner_low=0.008,
        inner_high=0.192,
    )
    assert not difference.significant and difference.within(0.2) and not difference.within(0.19)
    assert difference.detectable_effect() == pytest.approx(2.80 * 0.056, rel=1e-3)  # power 80 %
    assert difference.swapped().swapped() == difference and difference.swapped().inner_high == -0.008


def test_by_supercategory_and_subject() -> None:
    counts = paired.subject_counts(
        pairs_of(
            ("Law", "HUMSS", 10, 0, 12, 10), ("Taxation", "HUMSS", 5, 2, 2, 5), ("Math", "STEM", 5, 9, 1, 5)
        )
    )
    groups = paired.supercategory_differences(counts)
    assert groups["supercategory"].to_list() == ["HUMSS", "STEM"]
    assert groups["b"].to_list() == [2, 9] and groups["c"].to_list() == [14, 1]
    subjects = paired.subject_differences(counts)
    assert subjects["subject"].to_list() == ["Law", "Math", "Taxation"]
    assert subjects["difference"].to_list() == pytest.approx([12 / 32, -8 / 20, 0.0])
    # p: 1/4096, 7/512... corrected ones are never smaller
    assert subjects["p_value"][0] == pytest.approx(2 / 4096 - 1 / 4096)
    assert (subjects["p_holm"] >= subjects["p_value"]).all() and (
        subjects["p_holm"] >= subjects["p_bh"]
    ).all()


def test_equal_takes_two_one_sided_tests_at_five_percent() -> None:
    """The 90 % interval lies within the margin, though the 95 % one does not."""
    rows = pl.DataFrame(
        {
            "subject": ["Law"] * 10_000,
            "supercategory": ["HUMSS"] * 10_000,
            "first": [True] * 450 + [False] * 450 + [True] * 9_100,
            "second": [False] * 450 + [True] * 450 + [True] * 9_100,
        }
    )
    found = paired.micro_difference(paired.subject_counts(rows))
    assert found.low < found.inner_low < 0 < found.inner_high < found.high
    margin = (found.inner_high + found.high) / 2
    assert found.within(margin) and not -margin < found.low
    assert not found.within(found.inner_high * 0.99)


def test_counts_are_of_the_questions_at_hand_not_of_the_last_ones() -> None:
    rows = pairs_of(("Law", "HUMSS", 4, 1, 2, 3), ("Math", "STEM", 1, 2, 3, 4))
    expected = paired.subject_counts(rows)
    turned = rows.reverse()
    for other in (turned, rows.head(7), rows.sample(fraction=1.0, shuffle=True, seed=1), rows):
        counts = paired.subject_counts(other)
        assert counts["n"].sum() == len(other)
        if len(other) == len(rows):
            assert counts.equals(expected)


def test_an_answer_of_which_nothing_is_known_counts_as_asked_only() -> None:
    rows = pairs_of(("Law", "HUMSS", 4, 1, 2, 3))
    one = rows["first"].to_list()
    counts = paired.subject_counts(rows.with_columns(first=pl.Series([None, *one[1:]])))
    full = paired.subject_counts(rows)
    assert counts["n"][0] == full["n"][0] == len(rows)
    assert counts["first"][0] == full["first"][0] - one[0]
