"""Many runs against one base: every pair compared, p corrected for their number and for logged comparisons.

In: runs, the base first; or pairs, and what was logged of other comparisons with their base. Out: the pairs,
corrected. Knows nothing of where the log is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from kmmlu_fast.analysis import paired
from kmmlu_fast.analysis.best_of import shrink_best
from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.error_spending import Ledger
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings, HeadlineComparison
from kmmlu_fast.analysis.paired import ALPHA
from kmmlu_fast.analysis.strata import IntervalEstimate
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.run import Run

AnyPair = TypeVar("AnyPair", bound=HeadlineComparison)


def compare_with_base(
    runs: list[Run], settings: ComparisonSettings
) -> tuple[list[PairComparison], list[tuple[str, str]]]:
    """Every run against the first, p corrected for their number; and (name, reason) of each run that cannot
    be compared with it. Prompts may differ here.
    """
    settings = replace(settings, different_prompts=True)
    pairs, refused = [], []
    for other in runs[1:]:
        try:
            pairs.append(compare_pair(runs[0], other, settings))
        except RunError as error:
            refused.append((other.name, str(error)))
    return adjust_pair_p_values(pairs), refused


def adjust_pair_p_values(
    pairs: Sequence[AnyPair], ledgers: Mapping[str, Ledger] | None = None
) -> list[AnyPair]:
    """The pairs with p corrected (Holm) for all of them; if ``ledgers`` has the second run, also for every
    logged comparison with the same base, by the level that this one was given.
    """
    ledgers = ledgers or {}
    if not pairs or (len(pairs) < 2 and not ledgers):
        return list(pairs)
    values = [1.0 if pair.micro.p_value is None else pair.micro.p_value for pair in pairs]
    holm = paired.adjust_p_values(np.array(values), "holm")
    logged: dict[str, float] = {}
    for ledger in ledgers.values():
        logged |= ledger.other_differences
    differences = [pair.micro.difference for pair in pairs] + list(logged.values())
    best = max(differences)
    ties = int(np.isclose(differences, best, rtol=0.0, atol=1e-12).sum())
    adjusted = []
    for pair, p_value in zip(pairs, holm, strict=True):
        spent = ledgers.get(pair.second)
        is_best = bool(np.isclose(pair.micro.difference, best, rtol=0.0, atol=1e-12))
        several = len(differences) > 1
        adjusted.append(
            replace(
                pair,
                tried=max(len(differences), spent.comparisons if spent else 1),
                p_holm=max(float(p_value), spent.corrected_p_value if spent else 0.0),
                alpha=min(ALPHA / len(pairs), spent.level if spent else ALPHA),
                best_of=several and is_best and ties == 1,
                tied=ties - 1 if several and is_best else 0,
                shrunk=_shrink_best(pair, differences) if several and is_best and ties == 1 else None,
            )
        )
    return adjusted


def _shrink_best(pair: HeadlineComparison, differences: list[float]) -> IntervalEstimate | None:
    """The best difference without the luck of being chosen; the others are taken to be as uncertain."""
    return shrink_best(differences, [pair.micro.error] * len(differences))
