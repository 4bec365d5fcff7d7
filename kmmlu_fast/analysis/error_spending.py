"""How much error each comparison on test may spend, so that all comparisons with one base, whenever they are
made, together make a false claim in at most 5 %.

In: the log of comparisons. Out: the error level of the next batch, and p-values that may be compared with
5 %. Pure. Knows nothing of files.

The k-th comparison is given 6 alpha / (pi^2 k^2), which sums to alpha over any number of comparisons. Several
comparisons made at once are one batch: they share what they are given, by Holm. If every null hypothesis of a
batch is rejected, the next batch gets that batch's level on top (the fallback procedure: Wiens 2003,
Pharmaceutical Statistics 2:211; online: Tian and Ramdas 2021, Stat Methods Med Res 30:976). This holds under
any dependence, also between adapters compared on the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from kmmlu_fast.analysis.paired import ALPHA, adjust_p_values
from kmmlu_fast.runs.comparison_log import LoggedComparison, log_comparisons


def spending_share(number: int) -> float:
    """Share of alpha for the comparison of this number (1, 2, ...)."""
    return 6.0 / (math.pi**2 * number**2)


def next_level(log: Sequence[LoggedComparison], count: int) -> float:
    """The level of a batch of ``count`` comparisons made after those in ``log``."""
    carried = 0.0
    spent = 0
    for batch in log_batches(log):
        level = batch_level(batch) or carried + _given(spent, len(batch))
        carried = level if max(_holm(batch)) <= level else 0.0
        spent += len(batch)
    return carried + _given(spent, count)


def _given(spent: int, count: int) -> float:
    """What the next ``count`` comparisons are given after ``spent`` ones."""
    return float(ALPHA * sum(spending_share(spent + place) for place in range(1, count + 1)))


def log_batches(log: Sequence[LoggedComparison]) -> list[list[LoggedComparison]]:
    """The log by batch, oldest first; an entry from before there were batches is one of its own."""
    batches: list[list[LoggedComparison]] = []
    for batch, entries in groupby(log, key=lambda entry: entry.batch):
        together = list(entries)
        batches += [[entry] for entry in together] if batch < 0 else [together]
    return batches


def batch_level(batch: Sequence[LoggedComparison]) -> float:
    """The level that a batch was given; 0 if it was written before there were levels."""
    return float(min(ALPHA, max(entry.level for entry in batch)))


def _holm(batch: Sequence[LoggedComparison]) -> list[float]:
    values = [1.0 if entry.p_value is None else entry.p_value for entry in batch]
    return [float(p) for p in adjust_p_values(np.array(values), "holm")]


def corrected_p_values(log: Sequence[LoggedComparison]) -> dict[tuple[str, str, int], float]:
    """p of every logged comparison, to be compared with 5 %: Holm within its batch, scaled by its level."""
    corrected: dict[tuple[str, str, int], float] = {}
    spent: list[LoggedComparison] = []
    for batch in log_batches(log):
        level = batch_level(batch) or next_level(spent, len(batch))
        spent += batch
        for entry, p_value in zip(batch, _holm(batch), strict=True):
            corrected[entry.key] = min(1.0, p_value * ALPHA / level)
    return corrected


def reserve_early_levels(folder: Path, adapters: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Log early comparisons of adapters (digest, name) with the base in ``folder`` before they start; the
    level of each, by digest. A comparison that is logged already keeps its level.
    """
    entries = {
        digest: LoggedComparison(
            adapter=digest, name=name, time_utc="", questions=0, p_value=None, kind="early"
        )
        for digest, name in adapters
    }
    log = log_comparisons(folder, list(entries.values()), next_level)
    return {digest: ledger.level for digest, ledger in make_ledgers(log, entries).items()}


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the log says about one comparison."""

    corrected_p_value: float  # to be compared with 5 %
    level: float  # at which its own p is tested first
    comparisons: int  # logged with this base
    other_differences: dict[str, float]  # of adapters that are not compared now, by digest: their latest


def make_ledgers(
    log: Sequence[LoggedComparison], comparisons: Mapping[str, LoggedComparison]
) -> dict[str, Ledger]:
    """By name, what the log says about each of ``comparisons``, which it contains."""
    corrected = corrected_p_values(log)
    compared = {entry.adapter for entry in comparisons.values()}
    others = {
        entry.adapter: entry.difference
        for entry in log
        if entry.adapter not in compared and entry.p_value is not None
    }
    levels: dict[tuple[str, str, int], float] = {}
    spent: list[LoggedComparison] = []
    for batch in log_batches(log):
        level = batch_level(batch) or next_level(spent, len(batch))
        spent += batch
        levels |= {entry.key: level / len(batch) for entry in batch}
    return {
        name: Ledger(corrected[entry.key], levels[entry.key], len(log), others)
        for name, entry in comparisons.items()
    }
