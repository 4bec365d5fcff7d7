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
        rows += [{"subject": subject, "supercategory": group, "first": one, "second": two} for one, two in cells]
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
    assert paired.corrected(values, "holm") == pytest.approx([0.03, 0.06, 0.06])
    # Benjamini-Hochberg: 0.01*3/1, 0.04*3/3, min(0.03*3/2, 0.04)
    assert paired.corrected(values, "fdr_bh") == pytest.approx([0.03, 0.04, 0.04])
    assert len(paired.corrected(np.array([]), "holm")) == 0


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
    assert (1.959964 * lone**0.5 + 0.841621 * (lone - lone**2) ** 0.5) ** 2 / lone**2 == pytest.approx(100, rel=1e-5)
    assert paired.minimum_detectable_effect(2, 0.5) is None


def test_micro_rises_and_macro_falls() -> None:
    # Law: 100 questions, 50 -> 60 right. Math: 10 questions, 8 -> 4 right.
    counts = paired.subject_counts(pairs_of(("Law", "HUMSS", 45, 5, 15, 35), ("Math", "STEM", 4, 4, 0, 2)))
    draws = paired.replicates(counts, seed=1, number=4000)
    micro, macro = paired.micro_difference(counts, draws), paired.macro_difference(counts, draws)
    assert (micro.n, micro.b, micro.c) == (110, 9, 15)
    assert (micro.first, micro.second, micro.difference) == pytest.approx((58 / 110, 64 / 110, 6 / 110))
    assert (macro.first, macro.second, macro.difference) == pytest.approx((0.65, 0.5, -0.15))
    # both cells: binomial mid-p of 9 in 24
    assert micro.p_value == pytest.approx(float(paired.mcnemar_midp(9, 15)))
    assert macro.p_value is None
    # the standard error of the micro difference: sum over subjects of n * (p_b + p_c - (p_c - p_b)^2) / n_all^2
    variance = (100 * (0.2 - 0.1**2) + 10 * (0.4 - 0.4**2)) / 110**2
    assert (micro.high - micro.low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.1)
    assert macro.low < -0.15 < macro.high and macro.significant == (macro.high < 0)


def test_bootstrap_is_seeded_and_stratified() -> None:
    counts = paired.subject_counts(pairs_of(("Law", "HUMSS", 10, 3, 5, 2), ("Math", "STEM", 0, 0, 10, 0)))
    one, again, other = (paired.replicates(counts, seed, 500) for seed in (7, 7, 8))
    assert (one == again).all() and (one != other).any()
    assert (one[:, 1] == 10).all()  # every replicate of Math gains all ten: resampling never mixes subjects


def test_by_supercategory_and_subject() -> None:
    counts = paired.subject_counts(
        pairs_of(("Law", "HUMSS", 10, 0, 12, 10), ("Taxation", "HUMSS", 5, 2, 2, 5), ("Math", "STEM", 5, 9, 1, 5))
    )
    groups = paired.by_supercategory(counts, paired.replicates(counts, 1, 500))
    assert groups["supercategory"].to_list() == ["HUMSS", "STEM"]
    assert groups["b"].to_list() == [2, 9] and groups["c"].to_list() == [14, 1]
    subjects = paired.by_subject(counts)
    assert subjects["subject"].to_list() == ["Law", "Math", "Taxation"]
    assert subjects["difference"].to_list() == pytest.approx([12 / 32, -8 / 20, 0.0])
    # p: 1/4096, 7/512... corrected ones are never smaller
    assert subjects["p_value"][0] == pytest.approx(2 / 4096 - 1 / 4096)
    assert (subjects["p_holm"] >= subjects["p_value"]).all() and (subjects["p_holm"] >= subjects["p_bh"]).all()
