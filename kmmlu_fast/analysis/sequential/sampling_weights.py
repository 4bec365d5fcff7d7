"""The adaptive order: questions whose answer an adapter may change are drawn sooner.

In: what is known about the questions, and the answers so far. Out: ``DrawnWeights`` (the weight of each
question at each redraw) and the order drawn with them. Pure, numpy only. Knows nothing of tests or runs.

Successive sampling: of the remaining questions R, question i is drawn next with probability w_i / W, W the
sum of w over R. It is drawn by exponential clocks: in the order of E_i / w_i, E_i standard exponential. The
clocks have no memory, so the remaining questions may be redrawn with other weights at any time. Multiplied by
(W / |R|) / w_i, y_i - h_i is unbiased for the mean of y - h over R at each draw, whatever the weights
(Horvitz and Thompson 1952; for tests by betting Shekhar, Xu, Lipton, Liang and Ramdas 2023). Weights
proportional to the standard deviation of y_i, sqrt(h_i (1 - h_i)), give the least variance.

Weights are integers from 1 to 255, so that their sums are exact and a file keeps them in a byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.uint8]
FIRST_REDRAW = 225  # answers; in a small exam an eighth of the questions, but at least LEAST_REDRAW
LEAST_REDRAW = 20
REDRAW_GROWTH = 1.5  # of the answers, between two redraws
_MOST = 255
_LEAST_AT_START = 0.2  # of the largest weight
_LEAST_LATER = 0.15


@dataclass(frozen=True, slots=True)
class DrawnWeights:
    """The weights that an order was drawn with: those of the last redraw at or before each place."""

    starts: tuple[int, ...]  # places from which each redraw counts; ascending, the first is 0
    values: tuple[Weights, ...]  # (N,) each, in the order of asking; not used before its start

    def at_place(self, place: int) -> Weights:
        """The weights with which the question at ``place`` was drawn."""
        later = sum(start <= place for start in self.starts)
        return self.values[later - 1]

    def select_questions(self, kept: NDArray[np.bool_]) -> DrawnWeights:
        """The weights of some of the questions, which were drawn by the same clocks."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return DrawnWeights(
            tuple(int(before[start]) for start in self.starts), tuple(value[kept] for value in self.values)
        )


def list_redraw_places(total: int) -> list[int]:
    """Numbers of answers after which the remaining questions are redrawn: 225, 337, ... below ``total``."""
    place = float(min(FIRST_REDRAW, max(LEAST_REDRAW, total // 8)))
    places = []
    while place < total:
        places.append(int(place))
        place *= REDRAW_GROWTH
    return places


def list_look_places(total: int) -> list[int]:
    """Numbers of answers after which adapters are looked at: where the rest is redrawn, two between each two
    redraws, and the end.
    """
    redraws = [*list_redraw_places(total), total]
    places = set(redraws)
    for before, after in itertools.pairwise(redraws):
        places |= {round(before * (after / before) ** (part / 3)) for part in (1, 2)}
    return sorted(places)


def make_start_weights(margin: Floats) -> Weights:
    """Weights before any answer: a small margin (nats) of the base, and an unknown one, count most."""
    known = margin[~np.isnan(margin)]
    typical = float(np.median(known)) if len(known) else 0.0
    if typical <= 0:
        return np.full(len(margin), _MOST, dtype=np.uint8)
    weights = np.exp(-np.nan_to_num(np.maximum(margin, 0.0)) / typical)
    return _round_weights(np.maximum(weights, _LEAST_AT_START))


def make_change_weights(expected_right: Sequence[Floats]) -> Weights:
    """Weights of all questions from each model state's expected share of right answers: the standard
    deviation of an answer, over the states as a root mean square.
    """
    variance = np.mean([share * (1.0 - share) for share in expected_right], axis=0)
    weights = np.sqrt(variance)
    return _round_weights(np.maximum(weights / weights.max(), _LEAST_LATER))


def draw_order(weights: Weights, seed: int, place: int) -> NDArray[np.int64]:
    """A random order of ``weights``, by exponential clocks. ``place``: answers before this draw."""
    draw = np.random.Generator(np.random.PCG64([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, place]))
    clocks = draw.standard_exponential(len(weights)) / weights
    return np.argsort(clocks, kind="stable")


def _round_weights(weights: Floats) -> Weights:
    return np.clip(np.rint(_MOST * weights), 1, _MOST).astype(np.uint8)
