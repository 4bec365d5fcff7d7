"""How much larger the change is on questions that overlap training data than on the others.

In: per question the change (-1, 0, 1), its subject and key, whether it overlaps. Out: an
``IntervalEstimate``, or None if it cannot be judged. Pure. Knows nothing of runs.

Only like is compared with like: within a subject and a key letter, so that a subject that gained, or a
letter habit that came or went, is not taken for a leak. Cells are weighted by n1 n0 / (n1 + n0), the inverse
variance of their difference. Where nothing changed the observed variance is 0, though the true one is not:
each side's variance is that with two pseudo-changes, one up and one down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.analysis.strata import Codes, Estimate, Floats, IntervalEstimate

FEWEST = 30  # overlapping questions with others of their kind; with fewer there is no estimate


@lru_cache(maxsize=1)
def count_overlap_by_subject(overlap: frozenset[str]) -> Mapping[str, int]:
    """How many questions of each subject overlap; counted once for all pairs of a report."""
    return Counter(question_id.split("/")[0] for question_id in overlap)


def estimate_overlap_gap(
    change: Floats, strata: Codes, key: Codes, overlaps: NDArray[np.bool_]
) -> IntervalEstimate | None:
    """Change on the overlapping questions minus change on the others, within subject and key letter; None if
    fewer than ``FEWEST`` overlapping questions have others beside them.
    """
    cells = strata * (int(key.max(initial=0)) + 2) + key + 1  # some are empty; key -1: unknown
    count = int(cells.max(initial=-1)) + 1
    on, off = (np.bincount(cells[side], minlength=count).astype(float) for side in (overlaps, ~overlaps))
    both = (on > 0) & (off > 0)
    if on[both].sum() < FEWEST:
        return None
    weights = np.where(both, on * off / np.maximum(on + off, 1.0), 0.0)
    weights /= weights.sum()
    means, variances, freedom = [], [], []
    for side, sizes in ((overlaps, on), (~overlaps, off)):
        share = np.where(both, weights / np.maximum(sizes, 1.0), 0.0)[cells[side]]
        values = change[side]
        mean = float(share @ values)
        used = int((share > 0).sum())
        # heavier cells count for what they change; pseudo-changes are spread over all questions
        variance = float(share**2 @ (values - mean) ** 2) * used / max(used - 1, 1)
        variance += 2.0 * float((share**2).sum()) / used
        means.append(mean)
        variances.append(variance)
        freedom.append(float((values[share > 0] != 0).sum()) + 2.0 - 1.0)
    total = sum(variances)
    df = total**2 / sum(part**2 / free for part, free in zip(variances, freedom, strict=True))
    estimate = Estimate(means[0] - means[1], total**0.5, df)
    return IntervalEstimate(estimate.value, *estimate.interval())
