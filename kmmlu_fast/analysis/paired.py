"""Paired statistics of two runs over the same questions: whether the difference is real, and how small a
difference could have been detected.

In: per-question correctness of a first and a second run, and each question's group; or the counts b and c.
Out: p-values, intervals, effect sizes, as plain numbers and polars frames. Pure and seeded. Knows nothing of
runs, files or words.

``b``: only the first run was right; ``c``: only the second. A difference is always second minus first, (c -
b) / n, 0-1.

* p-value: McNemar's exact test as mid-p, which the binomial distribution of b given b + c yields (Fagerland,
  Lydersen and Laake 2013, BMC Med Res Methodol 13:91: the exact test is needlessly conservative, mid-p keeps
  its level).
* micro, macro and supercategory intervals: stratified by subject (``strata``), as KMMLU's subjects are fixed,
  not sampled. On full data they equal a bootstrap within subjects to 0.0003; with few questions per subject
  that bootstrap is too narrow.
* a single subject's interval, and any over fewer than 50 questions or 10 changes: adjusted Wald for paired
  proportions (Bonett and Price 2012, J Educ Behav Stat 37:479), which stays valid with b = c = 0.
* if a sample does not have the subjects in their full proportions, micro weights each subject by its full
  size (post-stratification), and its p is the stratified McNemar score test's.
* minimum detectable effect: the sample-size formula of McNemar's test (Connor 1987, Biometrics 43:207),
  solved for the effect.
* population: by default all results refer to questions *like these*. With ``asked`` (sampled share by
  subject) they refer to *these* questions.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.analysis.strata import Estimate, Floats, stratified_mean_of_sums

# What a comparison shows; "opposed": micro and macro go opposite ways, both significantly.
Outcome = Literal["better", "worse", "opposed", "equal", "undecided"]

ALPHA = 0.05
POWER = 0.8
FEW_QUESTIONS, FEW_CHANGES = 50, 10  # below either, Bonett and Price's interval


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """Second minus first over one set of questions; shares are 0-1."""

    n: int
    first: float  # accuracy of the first run (macro: mean of subject accuracies)
    second: float
    difference: float
    low: float  # 95 % interval
    high: float
    b: int  # only the first run right
    c: int  # only the second
    # McNemar mid-p, or a weighted mean's score test; None for macro, for which the interval decides
    p_value: float | None
    error: float  # standard error that the interval is based on
    inner_low: float  # 90 % interval: two one-sided tests at 5 % each
    inner_high: float
    weighted: bool = False  # subjects count by their full sizes, not by their questions in the sample

    @property
    def significant(self) -> bool:
        """At 5 %, by the interval and, if there is one, by the test: no claim contradicts its interval."""
        return self.significant_at(self.p_value)

    def significant_at(self, p_value: float | None) -> bool:
        """The same with a corrected p."""
        return not self.low <= 0.0 <= self.high and (p_value is None or p_value < ALPHA)

    def swapped(self) -> PairedDifference:
        """First minus second."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            b=self.c,
            c=self.b,
            inner_low=-self.inner_high,
            inner_high=-self.inner_low,
        )

    def within(self, margin: float) -> bool:
        """Whether two one-sided tests at 5 % each place the difference inside +-margin (0-1): the 90 %
        interval lies inside it (Schuirmann 1987, J Pharmacokinet Biopharm 15:657).
        """
        return -margin < self.inner_low and self.inner_high < margin

    def detectable_effect(self, alpha: float = ALPHA) -> float | None:
        """Smallest true difference that is seen with 80 % power at ``alpha``, by the printed standard error;
        None if there is none.
        """
        from scipy.special import ndtri

        effect = float(ndtri(1 - alpha / 2) + ndtri(POWER)) * self.error
        return effect if 0.0 < effect <= 1.0 else None


def mcnemar_midp(b: NDArray[np.int64] | int, c: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Two-sided mid-p of McNemar's exact test, elementwise; 1 if no answer differs."""
    from scipy.special import bdtr, gammaln

    b, c = np.asarray(b, dtype=float), np.asarray(c, dtype=float)
    smaller, both = np.minimum(b, c), b + c
    log_binomial = gammaln(both + 1) - gammaln(smaller + 1) - gammaln(both - smaller + 1)
    point = np.exp(log_binomial - both * np.log(2.0))
    values = 2 * bdtr(smaller, both.astype(np.int64), 0.5) - point
    return np.where(both == 0, 1.0, np.clip(values, 0.0, 1.0))


def adjust_p_values(p_values: Floats, method: str) -> Floats:
    """p-values corrected for their number: ``holm`` (family-wise; Holm 1979) or ``fdr_bh`` (Benjamini and
    Hochberg 1995).

    Equal to statsmodels' multipletests, which takes two seconds to import and a garbage collection per call.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    ranked = np.asarray(p_values, dtype=float)[order]
    if method == "holm":
        ranked = np.maximum.accumulate(ranked * np.arange(count, 0, -1))
    elif method == "fdr_bh":
        ranked = np.minimum.accumulate((ranked * count / np.arange(1, count + 1))[::-1])[::-1]
    else:
        raise ValueError(f"unknown correction {method!r}; allowed are holm and fdr_bh")
    result = np.empty(count)
    result[order] = np.clip(ranked, 0.0, 1.0)
    return result


def paired_interval(
    b: Floats, c: Floats, n: Floats, asked: Floats | float = 0.0, alpha: float = ALPHA
) -> tuple[Floats, Floats]:
    """Interval of (c - b) / n at 1 - alpha by Bonett and Price's adjusted Wald, elementwise; ``asked``
    restricts the population to these questions.
    """
    from scipy.special import ndtri

    centre, error = _adjusted_wald(b, c, n, asked)
    half = ndtri(1 - alpha / 2) * error
    return np.clip(centre - half, -1.0, 1.0), np.clip(centre + half, -1.0, 1.0)


def _adjusted_wald(b: Floats, c: Floats, n: Floats, asked: Floats | float) -> tuple[Floats, Floats]:
    """Centre and standard error of Bonett and Price's interval."""
    b, c, n = (np.asarray(values, dtype=float) for values in (b, c, n))
    left = np.sqrt(np.clip(1.0 - np.asarray(asked, dtype=float), 0.0, 1.0))
    first, second = (b + 1) / (n + 2), (c + 1) / (n + 2)
    centre = np.where(left > 0, second - first, (c - b) / n)
    return centre, np.sqrt((first + second - (second - first) ** 2) / (n + 2)) * left


def minimum_detectable_effect(n: int, discordance: float, alpha: float = ALPHA) -> float | None:
    """Smallest true difference that McNemar's test at ``alpha`` detects with 80 % power, for n questions;
    None if there is none.

    ``discordance`` is the share of questions on which exactly one run is right. A difference cannot exceed
    it, so for a larger one all changes are assumed to go the same way, the most favourable case.
    """
    from scipy.special import ndtri

    z_alpha, z_beta = float(ndtri(1 - alpha / 2)), float(ndtri(POWER))
    if n < max(1.0, z_alpha**2):
        return None
    # d = discordance: the larger root of (sqrt(n) e - z_alpha sqrt(d))^2 = z_beta^2 (d - e^2)
    spread = z_alpha * math.sqrt(n) + z_beta * math.sqrt(n - z_alpha**2 + z_beta**2)
    effect = math.sqrt(discordance) * spread / (n + z_beta**2)
    if 0 < effect <= discordance:
        return effect
    # d = e; the root of (z_alpha + z_beta u)^2 = n (1 - u^2), u^2 = 1 - e
    root = (z_alpha * z_beta) ** 2 - (n + z_beta**2) * (z_alpha**2 - n)
    return 1.0 - ((math.sqrt(root) - z_alpha * z_beta) / (n + z_beta**2)) ** 2


def subject_counts(pairs: pl.DataFrame) -> pl.DataFrame:
    """``pairs`` (subject, supercategory, first, second: booleans) -> one row per subject: n, first, second
    (right), b, c.
    """
    one, other = pairs["first"], pairs["second"]
    if one.null_count() or other.null_count():
        return _count_known_answers(pairs)
    rows, strata = _group_by_subject(pairs)
    # right by both, by the first, by the second run, as a number 0 to 3
    answers = 2 * one.to_numpy().astype(np.int64) + other.to_numpy()
    none, c, b, both = np.bincount(4 * strata + answers, minlength=4 * len(rows)).reshape(-1, 4).T
    counted = {"n": none + c + b + both, "first": b + both, "second": c + both, "b": b, "c": c}
    return rows.with_columns(pl.Series(name, values, dtype=pl.Int64) for name, values in counted.items())


def _count_known_answers(pairs: pl.DataFrame) -> pl.DataFrame:
    """``subject_counts`` if some answers are neither right nor wrong: those count in n only."""
    one, other = pl.col("first"), pl.col("second")
    return (
        pairs.group_by("subject", "supercategory")
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            one.sum().cast(pl.Int64).alias("first"),
            other.sum().cast(pl.Int64).alias("second"),
            (one & ~other).sum().cast(pl.Int64).alias("b"),
            (~one & other).sum().cast(pl.Int64).alias("c"),
        )
        .sort("subject", "supercategory")
    )


# The latest grouping: all pairs of a report have the same questions.
_latest_groups: list[tuple[pl.DataFrame, pl.DataFrame, NDArray[np.int64]]] = []


def _group_by_subject(pairs: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The distinct subjects, sorted, and each question's row among them."""
    by = ["subject", "supercategory"]
    asked = pairs.select(by)
    for known, rows, strata in _latest_groups:
        if known.equals(asked):
            return rows, strata
    rows = asked.unique().sort(by)
    places = asked.join(
        rows.with_row_index("stratum"), on=by, how="left", maintain_order="left", nulls_equal=True
    )
    strata = places["stratum"].to_numpy().astype(np.int64)
    _latest_groups[:] = [(asked, rows, strata)]
    return rows, strata


def subject_size_weights(counts: pl.DataFrame, sizes: dict[str, int] | None) -> Floats | None:
    """Each subject's weight by its full size; None if sizes are not known or the sample already has their
    proportions. A subject in several groups (of another exam) has several rows, which share its weight.
    """
    if sizes is None or not set(counts["subject"]) <= set(sizes):
        return None
    full = np.array([sizes[name] for name in counts["subject"]], dtype=float)
    n, of_subject = counts["n"].to_numpy().astype(float), _subject_question_counts(counts)
    weights = full * (n / of_subject)
    weights = weights / weights.sum()
    return None if (of_subject > full).any() or np.allclose(weights, n / n.sum(), atol=1e-9) else weights


def asked_share(counts: pl.DataFrame, sizes: dict[str, int] | None) -> Floats:
    """Share of each subject's questions that were asked; 1 if the full size is not known."""
    n = _subject_question_counts(counts)
    full = np.array([(sizes or {}).get(name, 0) for name in counts["subject"]], dtype=float)
    return np.asarray(np.minimum(1.0, n / np.maximum(full, n)))


def _subject_question_counts(counts: pl.DataFrame) -> Floats:
    """The subject's n in each of its rows."""
    if counts["subject"].is_unique().all():
        return counts["n"].to_numpy().astype(float)
    return counts.select(pl.col("n").sum().over("subject"))["n"].to_numpy().astype(float)


class _Certainty(NamedTuple):
    """The fields of ``PairedDifference`` that say how certain a difference is."""

    error: float
    low: float
    high: float
    inner_low: float
    inner_high: float


def _weighted_mean_difference(
    counts: pl.DataFrame, weights: Floats, asked: Floats | None
) -> tuple[float, _Certainty]:
    """The weighted mean of the subjects' differences, and how certain it is."""
    b, c, n = (counts[name].to_numpy().astype(float) for name in ("b", "c", "n"))
    mean = stratified_mean_of_sums(n, c - b, b + c, weights, asked)
    if n.sum() >= FEW_QUESTIONS and b.sum() + c.sum() >= FEW_CHANGES:
        ends = [*mean.interval(1 - ALPHA), *mean.interval(1 - 2 * ALPHA)]
        return mean.value, _Certainty(mean.error, *ends)
    size = 1.0 / float((weights**2 / n).sum())  # effective sample size
    share = 0.0 if asked is None else float(asked.min())
    sums = weights @ (b / n) * size, weights @ (c / n) * size, np.array(size), share
    ends = [float(end) for alpha in (ALPHA, 2 * ALPHA) for end in paired_interval(*sums, alpha)]
    return mean.value, _Certainty(float(_adjusted_wald(*sums)[1]), *ends)


def score_test_p_value(counts: pl.DataFrame, weights: Floats, asked: Floats | None) -> float:
    """McNemar's score test of a weighted mean over strata: under "no difference" a changed question is as
    likely to go either way.
    """
    b, c, n = (counts[name].to_numpy().astype(float) for name in ("b", "c", "n"))
    if asked is not None:
        return stratified_mean_of_sums(n, c - b, b + c, weights, asked).p_value
    variance = float((weights**2 * (b + c) / n**2).sum())
    return Estimate(float(weights @ ((c - b) / n)), variance**0.5, 1e9).p_value


def micro_difference(
    counts: pl.DataFrame, weights: Floats | None = None, asked: Floats | None = None
) -> PairedDifference:
    """Over questions; ``weights`` (see ``subject_size_weights``) if the sample's own are not the
    population's.
    """
    n, first_right, second_right, b, c = (
        int(counts[name].sum()) for name in ("n", "first", "second", "b", "c")
    )
    shares = counts["n"].to_numpy() / n if weights is None else weights
    difference, certainty = _weighted_mean_difference(counts, shares, asked)
    if weights is None and asked is None:
        difference, p_value = (c - b) / n, float(mcnemar_midp(b, c))
        first, second = first_right / n, second_right / n
    else:
        p_value = score_test_p_value(counts, shares, asked)
        first, second = (
            float(shares @ (counts[name] / counts["n"]).to_numpy()) for name in ("first", "second")
        )
    return PairedDifference(
        n=n,
        first=first,
        second=second,
        difference=difference,
        b=b,
        c=c,
        p_value=p_value,
        weighted=weights is not None,
        **certainty._asdict(),
    )


def macro_difference(counts: pl.DataFrame, asked: Floats | None = None) -> PairedDifference:
    """Mean over subjects of each subject's difference."""
    first, second = (float((counts[name] / counts["n"]).to_numpy().mean()) for name in ("first", "second"))
    _, certainty = _weighted_mean_difference(counts, np.full(len(counts), 1 / len(counts)), asked)
    b, c = int(counts["b"].sum()), int(counts["c"].sum())
    return PairedDifference(
        n=int(counts["n"].sum()),
        first=first,
        second=second,
        difference=second - first,
        b=b,
        c=c,
        p_value=None,
        **certainty._asdict(),
    )


def supercategory_differences(
    counts: pl.DataFrame, weights: Floats | None = None, asked: Floats | None = None
) -> pl.DataFrame:
    """One row per supercategory: n, first, second (accuracies), difference, low, high, b, c, p_value, p_holm,
    p_bh.
    """
    rows = []
    for name in counts["supercategory"].unique().sort():
        mask = (counts["supercategory"] == name).to_numpy()
        own_weights = None if weights is None else weights[mask] / weights[mask].sum()
        own_asked = None if asked is None else asked[mask]
        part = micro_difference(counts.filter(pl.col("supercategory") == name), own_weights, own_asked)
        rows.append({"supercategory": name, **asdict(part)})
    return _with_adjusted_p_values(pl.DataFrame(rows))


def subject_differences(counts: pl.DataFrame, asked: Floats | None = None) -> pl.DataFrame:
    """One row per subject, as ``supercategory_differences`` with supercategory and minimum_detectable_effect.

    The effect is what Holm's first step detects, at 5 % divided by the number of subjects. It uses the pair's
    overall share of discordant questions, which is less noisy than a small subject's own.
    """
    b, c, n = (counts[name].to_numpy() for name in ("b", "c", "n"))
    low, high = paired_interval(b, c, n, 0.0 if asked is None else asked)
    share = float((b.sum() + c.sum()) / n.sum())
    effects = {
        int(size): minimum_detectable_effect(int(size), share, ALPHA / len(counts))
        for size in set(n.tolist())
    }
    p_values = mcnemar_midp(b, c)
    if asked is not None:  # a subject whose questions were all asked is known exactly
        p_values = np.where((asked >= 1) & (b != c), 0.0, p_values)
    frame = counts.select(
        "subject",
        "supercategory",
        "n",
        pl.col("first") / pl.col("n"),
        pl.col("second") / pl.col("n"),
        ((pl.col("c") - pl.col("b")) / pl.col("n")).alias("difference"),
        pl.Series("low", low),
        pl.Series("high", high),
        "b",
        "c",
        pl.Series("p_value", p_values),
        pl.Series("minimum_detectable_effect", [effects[int(size)] for size in n], dtype=pl.Float64),
    )
    return _with_adjusted_p_values(frame)


def _with_adjusted_p_values(frame: pl.DataFrame) -> pl.DataFrame:
    p_values = frame["p_value"].to_numpy()
    return frame.with_columns(
        pl.Series("p_holm", adjust_p_values(p_values, "holm"), dtype=pl.Float64),
        pl.Series("p_bh", adjust_p_values(p_values, "fdr_bh"), dtype=pl.Float64),
    )
