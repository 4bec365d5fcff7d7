"""A run beside a published figure: an unpaired difference.

In: a run's counts, a published share and its number of questions. Out: the difference with a 95 % interval.
Pure. Knows nothing of where figures come from.

The same questions were asked, but which of them the published model got right is not known, so nothing can be
paired. The interval is Newcombe's hybrid score interval for two independent proportions (Newcombe 1998,
Statistics in Medicine 17:873, method 10), which is too wide here rather than too narrow: answers to the same
questions go together.
"""

from __future__ import annotations

from kmmlu_fast.analysis.accuracy import wilson_interval
from kmmlu_fast.analysis.strata import IntervalEstimate


def unpaired_difference(correct: float, total: float, figure: float, questions: float) -> IntervalEstimate:
    """The run's accuracy minus ``figure`` (0-1), which was measured on ``questions`` questions."""
    own = correct / total
    low, high = wilson_interval(correct, total)
    other_low, other_high = wilson_interval(figure * questions, questions)
    value = own - figure
    below = ((own - low) ** 2 + (other_high - figure) ** 2) ** 0.5
    above = ((high - own) ** 2 + (figure - other_low) ** 2) ** 0.5
    return IntervalEstimate(value, value - below, value + above)
