"""Compares letters' log-probabilities of an artefact with the reference's, question by question.

In: log-probabilities (natural, A first) of base, reference and artefact for the same token ids. Out:
``LetterComparison``: Kullback-Leibler divergence, agreement, and the slope of the artefact's shift from the
base on the reference's: 1 right, 0 not applied, 2 twice, s another scale. Knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kmmlu_fast.core.letters import argmax_index, normalize_logprobs

Logprobs = Sequence[Sequence[float]]
NEAR_TIE = 0.25  # nats between the reference's best two: within bfloat16's steps of a logit
_REPLICATES = 400
_ONE_SIDED = 1.645  # normal quantile at 95 %
_MIN_SHIFT = 0.02  # nats, root mean square: below it a slope says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterComparison:
    """Paired letters. Shifts are of centred log-probabilities, in nats, root mean square."""

    questions: int
    divergence: float  # mean KL(reference || artefact) over the letters, nats
    same_letters: int
    changed_beyond_ties: int  # other letter although the reference's margin is over NEAR_TIE
    reference_shift: float  # of the reference from the base
    difference: float  # of the artefact from the reference
    slope: float | None  # None: the adapter moves these letters too little to say
    slope_low: float = 0.0
    slope_high: float = 0.0
    key_change: float = 0.0  # mean change of the key's share, artefact - reference
    key_change_error: float = 0.0  # its standard error
    gained: int = 0  # right in the artefact only
    lost: int = 0
    widest_tie: float = 0.0  # nats: the largest reference margin, up to NEAR_TIE, of a changed letter
    median_margin: float = 0.0  # of the reference, all questions

    @property
    def key_bound(self) -> float:
        """The largest change of the key's share that the answers are compatible with (95 %)."""
        return abs(self.key_change) + _ONE_SIDED * self.key_change_error

    def questions_for(self, margin: float) -> int | None:
        """About how many questions bring ``key_bound`` down to ``margin`` if the change stays what it is, two
        digits, rounded up; None if the change itself is larger.
        """
        room = margin - abs(self.key_change)
        if room <= 0:
            return None
        wanted = self.questions * (_ONE_SIDED * self.key_change_error / room) ** 2
        step = 10.0 ** max(0, math.floor(math.log10(max(wanted, 1.0))) - 1)
        return int(math.ceil(wanted / step) * step)


def compare_letters(
    base: Logprobs, reference: Logprobs, artefact: Logprobs, keys: Sequence[int]
) -> LetterComparison:
    """Compare the same questions in the same order; ``keys``: the right option of each."""
    shift = _centred_differences(reference, base)
    moved = _centred_differences(artefact, base)
    gap = _centred_differences(artefact, reference)
    shares = [
        (np.exp(normalize_logprobs(one)), np.exp(normalize_logprobs(other)))
        for one, other in zip(reference, artefact, strict=True)
    ]
    divergence = [float(np.sum(one * (np.log(one) - np.log(other)))) for one, other in shares]
    best = [(argmax_index(one), argmax_index(other)) for one, other in zip(reference, artefact, strict=True)]
    margins = [float(np.diff(np.sort(np.asarray(row))[-2:])[0]) for row in reference]
    changes = [float(other[key] - one[key]) for (one, other), key in zip(shares, keys, strict=True)]
    changed = [margin for (one, other), margin in zip(best, margins, strict=True) if one != other]
    size = _rms(shift)
    slope, low, high = (None, 0.0, 0.0) if size < _MIN_SHIFT else _slope(shift, moved)
    return LetterComparison(
        questions=len(reference),
        divergence=float(np.mean(divergence)),
        same_letters=sum(one == other for one, other in best),
        changed_beyond_ties=sum(margin > NEAR_TIE for margin in changed),
        reference_shift=size,
        difference=_rms(gap),
        slope=slope,
        slope_low=low,
        slope_high=high,
        key_change=float(np.mean(changes)),
        key_change_error=float(np.std(changes, ddof=1) / np.sqrt(len(changes))) if len(changes) > 1 else 0.0,
        gained=sum(one != key == other for (one, other), key in zip(best, keys, strict=True)),
        lost=sum(one == key != other for (one, other), key in zip(best, keys, strict=True)),
        widest_tie=max((margin for margin in changed if margin <= NEAR_TIE), default=0.0),
        median_margin=float(np.median(margins)),
    )


def _centred_differences(one: Logprobs, other: Logprobs) -> list[Any]:
    rows = [np.asarray(a) - np.asarray(b) for a, b in zip(one, other, strict=True)]
    return [row - row.mean() for row in rows]


def _slope(shift: list[Any], moved: list[Any]) -> tuple[float, float, float]:
    """Least squares through the origin, with a percentile bootstrap over questions (95 %)."""
    products = np.array([float(np.dot(one, other)) for one, other in zip(shift, moved, strict=True)])
    powers = np.array([float(np.dot(one, one)) for one in shift])
    places = np.random.default_rng(0).integers(0, len(powers), size=(_REPLICATES, len(powers)))
    resampled = products[places].sum(1) / np.maximum(powers[places].sum(1), 1e-12)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(products.sum() / powers.sum()), float(low), float(high)


def _rms(rows: list[Any]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(rows) ** 2)))
