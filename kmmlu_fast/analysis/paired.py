"""Paired statistics of two runs over the same questions: is the difference real, and what could have been seen at all.

In: per-question correctness of a first and a second run, and each question's group; or the counts b and c. Out: p-values,
intervals, effect sizes, as plain numbers and polars frames. Pure and seeded. Knows nothing of runs, files or words.

``b``: only the first run was right; ``c``: only the second. A difference is always second minus first, (c - b) / n, 0-1.

* p-value: McNemar's exact test as mid-p, which the binomial distribution of b given b + c yields (Fagerland, Lydersen and
  Laake 2013, BMC Med Res Methodol 13:91: the exact test is needlessly conservative, mid-p keeps its level).
* micro, macro and supercategory intervals: percentile bootstrap, questions resampled within each subject (the subjects are
  KMMLU's, not a sample). Only (b, c, rest) matter, so a subject's replicate is one multinomial draw instead of n.
* a single subject's interval: adjusted Wald for paired proportions (Bonett and Price 2012, J Educ Behav Stat 37:479), which
  stays sound at n = 100 and with b = c = 0, where a bootstrap has nothing to resample.
* minimum detectable effect: the sample-size formula of McNemar's test (Connor 1987, Biometrics 43:207), solved for the effect.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

ALPHA = 0.05
POWER = 0.8
REPLICATES = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Second minus first over one set of questions; shares are 0-1."""

    n: int
    first: float  # accuracy of the first run (macro: mean of subject accuracies)
    second: float
    difference: float
    low: float  # 95 % interval
    high: float
    b: int  # only the first run right
    c: int  # only the second
    p_value: float | None  # McNemar mid-p; None for macro, where the interval decides

    @property
    def significant(self) -> bool:
        """At 5 %, by the test where there is one, else by the interval."""
        return self.p_value < ALPHA if self.p_value is not None else not self.low <= 0.0 <= self.high


def mcnemar_midp(b: NDArray[np.int64] | int, c: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Two-sided mid-p of McNemar's exact test, elementwise; 1 where no answer differs."""
    from scipy.stats import binom

    b, c = np.asarray(b, dtype=np.int64), np.asarray(c, dtype=np.int64)
    smaller = np.minimum(b, c)
    values = 2 * binom.cdf(smaller, b + c, 0.5) - binom.pmf(smaller, b + c, 0.5)
    return np.where(b + c == 0, 1.0, np.clip(values, 0.0, 1.0))


def corrected(p_values: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """p-values corrected for their number by statsmodels: ``holm`` (family-wise) or ``fdr_bh`` (false discovery rate)."""
    from statsmodels.stats.multitest import multipletests

    if len(p_values) == 0:
        return p_values
    return np.asarray(multipletests(p_values, alpha=ALPHA, method=method)[1])


@contextlib.contextmanager
def many_corrections() -> Iterator[None]:
    """Around many calls of ``corrected``: statsmodels' Holm calls gc.collect(), 0.1 s each time once it, scipy and pandas are loaded."""
    import statsmodels.stats.multitest  # noqa: F401  (loaded before the freeze, or its own objects are what is scanned)

    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def paired_interval(b: NDArray[np.int64], c: NDArray[np.int64], n: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of (c - b) / n by Bonett and Price's adjusted Wald, elementwise."""
    from scipy.stats import norm

    first, second = (b + 1) / (n + 2), (c + 1) / (n + 2)
    centre = second - first
    half = norm.ppf(1 - ALPHA / 2) * np.sqrt((first + second - centre**2) / (n + 2))
    return np.clip(centre - half, -1.0, 1.0), np.clip(centre + half, -1.0, 1.0)


def minimum_detectable_effect(n: int, discordance: float) -> float | None:
    """Smallest true difference that McNemar's test sees with 80 % power at 5 %, for n questions; None where none is.

    ``discordance`` is the share of questions on which exactly one run is right. A difference cannot exceed it, so for
    larger ones all changes are taken to go the same way, the most favourable case.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z_alpha, z_beta = norm.ppf(1 - ALPHA / 2), norm.ppf(POWER)

    def shortfall(effect: float) -> float:
        share = max(discordance, effect)
        return float((z_alpha * np.sqrt(share) + z_beta * np.sqrt(share - effect**2)) ** 2 / effect**2 - n)

    if n < 1 or shortfall(1.0) > 0:
        return None
    return float(brentq(shortfall, 1e-6, 1.0))


def subject_counts(pairs: pl.DataFrame) -> pl.DataFrame:
    """``pairs`` (subject, supercategory, first, second: booleans) -> a row a subject: n, first, second (right), b, c."""
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
        .sort("subject")
    )


def replicates(counts: pl.DataFrame, seed: int, number: int = REPLICATES) -> NDArray[np.float64]:
    """Bootstrap replicates of every subject's c - b, shape (number, subjects): questions resampled within the subject."""
    random = np.random.default_rng(seed)
    b, c, n = (counts[name].to_numpy() for name in ("b", "c", "n"))
    draws = np.empty((number, len(counts)))
    for i in range(len(counts)):
        cells = random.multinomial(n[i], [b[i] / n[i], c[i] / n[i], max(0.0, 1 - (b[i] + c[i]) / n[i])], size=number)
        draws[:, i] = cells[:, 1] - cells[:, 0]
    return draws


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def micro_difference(counts: pl.DataFrame, draws: NDArray[np.float64]) -> Difference:
    """Over questions. ``counts`` and ``draws`` have the same subjects in the same order."""
    n, first, second, b, c = (int(counts[name].sum()) for name in ("n", "first", "second", "b", "c"))
    low, high = _interval(draws.sum(axis=1) / n)
    return Difference(n, first / n, second / n, (c - b) / n, low, high, b, c, float(mcnemar_midp(b, c)))


def macro_difference(counts: pl.DataFrame, draws: NDArray[np.float64]) -> Difference:
    """Mean over subjects of each subject's difference."""
    n = counts["n"].to_numpy()
    first, second = float((counts["first"] / counts["n"]).mean()), float((counts["second"] / counts["n"]).mean())  # type: ignore[arg-type]
    low, high = _interval((draws / n).mean(axis=1))
    return Difference(int(n.sum()), first, second, second - first, low, high, int(counts["b"].sum()), int(counts["c"].sum()), None)


def by_supercategory(counts: pl.DataFrame, draws: NDArray[np.float64]) -> pl.DataFrame:
    """A row a supercategory: n, first, second (accuracies), difference, low, high, b, c, p_value, p_holm, p_bh."""
    rows = []
    for name in counts["supercategory"].unique().sort():
        mask = (counts["supercategory"] == name).to_numpy()
        part = micro_difference(counts.filter(pl.col("supercategory") == name), draws[:, mask])
        rows.append({"supercategory": name, **{field: getattr(part, field) for field in part.__dataclass_fields__}})
    return _with_corrections(pl.DataFrame(rows))


def by_subject(counts: pl.DataFrame) -> pl.DataFrame:
    """A row a subject, as ``by_supercategory`` with supercategory and minimum_detectable_effect.

    The effect takes the pair's overall share of discordant questions, which is steadier than a small subject's own.
    """
    b, c, n = (counts[name].to_numpy() for name in ("b", "c", "n"))
    low, high = paired_interval(b, c, n)
    share = float((b.sum() + c.sum()) / n.sum())
    effects = {int(size): minimum_detectable_effect(int(size), share) for size in set(n.tolist())}
    frame = counts.select(
        "subject", "supercategory", "n", (pl.col("first") / pl.col("n")), (pl.col("second") / pl.col("n")),
        ((pl.col("c") - pl.col("b")) / pl.col("n")).alias("difference"), pl.Series("low", low), pl.Series("high", high), "b", "c",
        pl.Series("p_value", mcnemar_midp(b, c)),
        pl.Series("minimum_detectable_effect", [effects[int(size)] for size in n], dtype=pl.Float64),
    )  # fmt: skip
    return _with_corrections(frame)


def _with_corrections(frame: pl.DataFrame) -> pl.DataFrame:
    p_values = frame["p_value"].to_numpy()
    return frame.with_columns(
        pl.Series("p_holm", corrected(p_values, "holm"), dtype=pl.Float64),
        pl.Series("p_bh", corrected(p_values, "fdr_bh"), dtype=pl.Float64),
    )
