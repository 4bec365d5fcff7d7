"""The sequential test for questions *like* these: is the second run better in general, not only on these N?

In: an ``AnswerStream``. Out: a ``Decision``. Pure, numpy only. Knows nothing of runs.

``betting`` speaks of the mean over exactly these N questions. Two draws of one model differ on those by luck,
and once most are asked, betting finds that luck. Here the N questions are themselves a sample, of variance
s^2 / N. Every answer gives an unbiased estimate g_t of the mean over the N,

    g_t = (sum of y before t + (N - t + 1) (x_t + expected_t)) / N
    of variance v_t = ((N - t + 1) / N)^2 s_t^2

weighted by 1 / v_t. With J = sum of 1 / v, information about the mean of questions like these is
I = 1 / (1 / J + s^2 / N), which never exceeds N / s^2. I x (estimate - mean) has independent increments
whichever way the questions are drawn: asymptotically a Brownian motion in I. Its normal mixture (Robbins
1970, Ann Math Stat 41:1397) gives bounds for all times at once; for estimated variances they are asymptotic
confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, Ann Stat 52:2613). So no verdict
is given before ``FEWEST`` answers and ``FEWEST_CHANGES`` changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kmmlu_fast.analysis.sequential.betting import Decision, Verdict
from kmmlu_fast.analysis.sequential.control_variate import AnswerStream
from kmmlu_fast.analysis.sequential.sampling_weights import Floats

FEWEST, FEWEST_CHANGES = 50, 10
_SCALE = 60.0  # the mixture is widest where 1/60 of all information would decide


@dataclass(frozen=True, slots=True)
class _Course:
    """The estimate and its information after each answer; no information while there are too few."""

    estimate: Floats
    information: Floats
    mixture: Floats  # rho, the mixture's precision

    def half_width(self, alpha: float) -> Floats:
        """Of the confidence sequence at 1 - alpha; infinite without information."""
        total = self.information + self.mixture
        with np.errstate(divide="ignore", invalid="ignore"):
            half = np.sqrt(total * np.log(total / (self.mixture * alpha**2))) / self.information
        return np.where(self.information > 0, half, np.inf)

    def log_evidence(self) -> Floats:
        """Natural log of the mixture's likelihood ratio against "no difference"."""
        total = self.information + self.mixture
        return np.asarray(
            0.5 * np.log(self.mixture / total) + (self.information * self.estimate) ** 2 / (2 * total)
        )


def decide_like(
    stream: AnswerStream, alpha: float, margin: float | None, equal_alpha: float | None = None
) -> Decision:
    """The first verdict reached, checked after each answer. ``margin`` None: never "equal"; ``equal_alpha``:
    the level of "equal", if it is not ``alpha``."""
    course = _follow_estimate(stream)
    half = course.half_width(alpha)
    low = np.maximum.accumulate(course.estimate - half)
    high = np.minimum.accumulate(course.estimate + half)
    reached: list[tuple[int, int, Verdict]] = []
    if (low > 0).any():
        reached.append((int(np.argmax(low > 0)) + 1, 0, "better"))
    if (high < 0).any():
        reached.append((int(np.argmax(high < 0)) + 1, 1, "worse"))
    if margin:
        inner = course.half_width(2 * (equal_alpha or alpha))  # two one-sided tests, each at alpha
        inside = np.maximum.accumulate(course.estimate - inner) > -margin
        inside &= np.minimum.accumulate(course.estimate + inner) < margin
        if inside.any():
            reached.append((int(np.argmax(inside)) + 1, 2, "equal"))
    at: int | None = None
    verdict: Verdict = "undecided"
    if reached:
        at, _, verdict = min(reached)
    evidence = course.log_evidence()
    most, last = (float(evidence.max(initial=0.0)), float(evidence[-1])) if len(evidence) else (0.0, 0.0)
    ends = (float(low[-1]), float(high[-1])) if len(low) else (-1.0, 1.0)
    if ends[0] > ends[1]:
        ends = (sum(ends) / 2,) * 2
    return Decision(
        verdict=verdict,
        decided_at=at,
        answers=len(stream),
        total=stream.total,
        low=max(-1.0, ends[0]),
        high=min(1.0, ends[1]),
        e_value=float(np.exp(min(last, 700.0))),
        p_value=float(np.exp(-most)),
        alpha=alpha,
        margin=margin or 0.0,
        population="like",
    )


def _follow_estimate(stream: AnswerStream) -> _Course:
    n, total = len(stream), stream.total
    count = np.arange(1, n + 1)
    left = (total - count + 1) / total
    guesses = stream.before / total + left * (stream.value + stream.expected)
    weights = 1.0 / (left * stream.spread) ** 2
    information = np.cumsum(weights)
    estimate = np.cumsum(weights * guesses) / information
    answers = np.diff(stream.before)  # all but the last
    changes = np.concatenate([[0.0], np.cumsum(answers**2)])[:n]
    of_all = np.concatenate([[0.0], np.cumsum(answers**2 * stream.importance[:-1])])[:n]
    variance = (of_all + 2.0) / (count + 2.0)  # of one question's change, with one pseudo-change a side
    information = 1.0 / (1.0 / information + variance / total)
    enough = (count >= min(FEWEST, total)) & (changes >= FEWEST_CHANGES)
    return _Course(estimate, np.where(enough, information, 0.0), total / variance / _SCALE)
