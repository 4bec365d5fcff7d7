"""Does a published bundle say what its model says? Tests on its own numbers, and on a re-scored sample.

In: a bundle's answers and headline; log-probabilities that someone else computed for some of its questions.
Out: ``BundleVerification`` with a reason for every rejection. Between machines letters' log-probabilities
differ by rounding, so that near ties flip: flips are weighed by margin. Knows nothing of files or engines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from kmmlu_fast.analysis.accuracy import summarise_predictions
from kmmlu_fast.core.letters import argmax_index
from kmmlu_fast.core.prediction_frames import logprobs_list
from kmmlu_fast.core.schema import OPTION_LETTERS

_LEVEL = 1e-4  # a test's probability of rejecting an honest bundle
_NOISE_FLOOR, _NOISE_CEILING = (
    0.02,
    0.15,
)  # nats: rounding of one letter's log-probability, float32 to bfloat16
# A difference that rounding does not make: between these, by how far most questions are apart.
_OUTLIER_NATS = (0.3, 0.75)
_OUTLIER_NOISES, _OUTLIER_TAILS = 8.0, 3.5  # times the noise; times what 95 % of the questions stay under


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleVerification:
    """The verdict: accepted if ``reasons`` is empty."""

    reasons: tuple[str, ...]
    questions: int = 0  # re-scored
    same_letters: int = 0
    noise: float = 0.0  # nats, of one centred log-probability, estimated from the sample
    expected_flips: float = 0.0

    @property
    def accepted(self) -> bool:
        return not self.reasons


def check_headline(headline: dict[str, Any], frame: pl.DataFrame) -> list[str]:
    """What in the published numbers does not follow from the published answers."""
    reasons = []
    if frame["question_id"].n_unique() != len(frame):
        reasons.append("a question is counted twice")
    is_right = frame["prediction"].eq_missing(frame["answer"])
    wrong = int((frame["correct"] != is_right).sum())
    if wrong:
        reasons.append(f"{wrong} answers are counted as right or wrong against their own letters")
    inconsistent = _count_other_letters(frame)
    if inconsistent:
        reasons.append(
            f"{inconsistent} letters are not the most probable ones of their own log-probabilities"
        )
    computed = summarise_predictions(frame.with_columns(is_right.alias("correct"))).to_json()
    reasons += _differing_numbers(headline, computed, "headline")
    return reasons


def _count_other_letters(frame: pl.DataFrame) -> int:
    scored = frame.filter(pl.col("read_by") == "loglikelihood")
    rows = scored.with_columns(logprobs_list()).select("logprobs", "prediction").iter_rows()
    return sum(
        OPTION_LETTERS[argmax_index(logprobs)] != prediction for logprobs, prediction in rows if logprobs
    )


def _differing_numbers(published: Any, computed: Any, where: str) -> list[str]:
    if isinstance(published, dict):
        reasons = []
        for key, value in published.items():
            there = computed.get(key) if isinstance(computed, dict) else None
            reasons += _differing_numbers(value, there, f"{where}.{key}")
        return reasons
    same = published == computed
    if isinstance(published, float) and isinstance(computed, (int, float)):
        same = math.isclose(published, computed, rel_tol=1e-9, abs_tol=1e-9)
    return [] if same else [f"{where} is {published!r}, its answers give {computed!r}"]


def verify_sample(
    published: Sequence[Sequence[float]], rescored: Sequence[Sequence[float]], keys: Sequence[int]
) -> BundleVerification:
    """Test the published log-probabilities (natural, A first) against re-scored ones, question by question.

    Three tests: no difference larger than rounding makes; no more flipped letters than the margins allow
    (Poisson-binomial); flips do not favour the key (binomial).
    """
    gaps = [_centred(one) - _centred(other) for one, other in zip(published, rescored, strict=True)]
    noise = _noise_of(gaps)
    reasons = []
    largest = [float(np.abs(gap).max()) for gap in gaps]
    limit = _outlier_limit(largest, noise)
    outliers = sum(value > limit for value in largest)
    if outliers:
        reasons.append(
            f"{outliers} of {len(gaps)} questions have other log-probabilities (up to {max(largest):.1f}"
            " nats;"
            f" rounding makes at most {limit:.1f})"
        )
    letters = [(argmax_index(one), argmax_index(two)) for one, two in zip(published, rescored, strict=True)]
    flips = [one != two for one, two in letters]
    chances = [_flip_chance(row, noise) for row in rescored]
    tail = poisson_binomial_tail(chances, sum(flips))
    if tail < _LEVEL:
        reasons.append(
            f"{sum(flips)} of {len(gaps)} letters differ, {sum(chances):.1f} are expected from their margins"
            f" (p = {tail:.1g})"
        )
    gained = sum(one == key != two for (one, two), key in zip(letters, keys, strict=True))
    lost = sum(one != key == two for (one, two), key in zip(letters, keys, strict=True))
    if poisson_binomial_tail([0.5] * (gained + lost), gained) < _LEVEL:
        reasons.append(f"of {gained + lost} letters that differ in being right, {gained} are in its favour")
    return BundleVerification(
        reasons=tuple(reasons),
        questions=len(gaps),
        same_letters=len(gaps) - sum(flips),
        noise=noise,
        expected_flips=sum(chances),
    )


def poisson_binomial_tail(chances: Sequence[float], at_least: int) -> float:
    """P(at least so many of independent events with these probabilities), exactly."""
    if at_least <= 0:
        return 1.0
    counts = np.zeros(at_least + 1)  # the last entry: at least so many
    counts[0] = 1.0
    for chance in chances:
        moved = counts * chance
        counts *= 1 - chance
        counts[1:] += moved[:-1]
        counts[-1] += moved[-1]
    return float(counts[-1])


def _centred(row: Sequence[float]) -> Any:
    values = np.asarray(row, dtype=float)
    return values - values.mean()


def _noise_of(gaps: Sequence[Any]) -> float:
    """A robust standard deviation (median absolute value / 0.6745), within what rounding makes."""
    values = np.abs(np.concatenate(list(gaps)))
    return float(np.clip(np.median(values) / 0.6745, _NOISE_FLOOR, _NOISE_CEILING))


def _outlier_limit(largest: Sequence[float], noise: float) -> float:
    """Nats beyond which a question was not only rounded differently. Rounding's own tails are those of this
    sample, as long as they are no larger than rounding's can be."""
    low, high = _OUTLIER_NATS
    tails = _OUTLIER_TAILS * float(np.quantile(largest, 0.95))
    return max(low, min(high, tails), _OUTLIER_NOISES * noise)


def _flip_chance(row: Sequence[float], noise: float) -> float:
    """That rounding changes the best letter: its lead is the difference of two noisy numbers. Tails of
    rounding errors are heavier than normal, hence twice the noise, and never less than 1 in 10,000."""
    best, second = sorted(row, reverse=True)[:2]
    spread = 2 * math.sqrt(2) * noise
    return max(1e-4, 0.5 * math.erfc((best - second) / spread / math.sqrt(2)))
