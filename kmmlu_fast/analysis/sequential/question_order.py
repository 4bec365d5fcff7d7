"""Runs that stopped early: what the first n questions of the random order say, of two runs or of one.

In: the order (ids, keys, how easy, of all N questions) and predictions frames that hold a beginning of it, or
all. Out: a ``Decision``, or an interval for an accuracy. Joins ``sequential`` to frames. Knows nothing of
words or run directories.

A subject's questions among n are few and were not what was waited for: no claim about a subject is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.analysis.sequential import betting
from kmmlu_fast.analysis.sequential.betting import ALPHA, MARGIN, Decision
from kmmlu_fast.analysis.sequential.control_variate import KnownQuestions, accuracy_stream, paired_stream
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.data.difficulty import public_ease


@dataclass(frozen=True, slots=True)
class QuestionOrder:
    """All N questions of a run in the order of asking."""

    ids: tuple[str, ...]
    key: NDArray[np.int64]  # (N,) the right option's place
    ease: NDArray[np.float64] | None  # (N,) from public runs, where they know these questions
    seed: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class OrderedAnswers:
    """One run's answers along an order, up to the first that is missing."""

    right: NDArray[np.bool_]
    margin: NDArray[np.float64]  # nats; NaN where it has none

    def __len__(self) -> int:
        return len(self.right)


def make_question_order(
    ids: Sequence[str], keys: Sequence[str], seed: int, public: bool = True
) -> QuestionOrder:
    """``ids`` and their keys (letters) in the order of asking. ``public``: whether the packaged difficulty is
    for this exam.
    """
    places = np.unique(np.asarray(keys), return_inverse=True)[1].astype(np.int64)
    return QuestionOrder(tuple(ids), places, public_ease(ids) if public else None, seed)


def answers_in_order(order: QuestionOrder, predictions: pl.DataFrame) -> OrderedAnswers:
    """The beginning of the order that the predictions hold."""
    columns = predictions.select("question_id", "correct", "margin").iter_rows()
    found = {question_id: (right, margin) for question_id, right, margin in columns}
    rows = []
    for question_id in order.ids:
        if question_id not in found:
            break
        rows.append(found[question_id])
    margins = [np.nan if margin is None else margin for _, margin in rows]
    return OrderedAnswers(
        np.array([right for right, _ in rows], dtype=bool), np.array(margins, dtype=np.float64)
    )


def decide_on_answers(
    order: QuestionOrder,
    first: OrderedAnswers,
    second: OrderedAnswers,
    alpha: float = ALPHA,
    margin: float | None = MARGIN,
    ahead: bool | None = None,
) -> Decision:
    """Second against first, as of the question that decided it; undecided: as of the last that both have.

    ``ahead``: whether the first was complete before the second was asked; default: if it is complete.
    """
    total = len(order)
    n = min(len(first), len(second))
    complete = len(first) == total and ahead is not False
    known = KnownQuestions(total, order.ease, order.key, first.margin if complete else None)
    one = first.right if complete else first.right[:n]
    stream = paired_stream(one, second.right[:n], known, ahead=complete)
    _, at = betting.first_verdict(stream, alpha, margin)
    if at is not None and at < n < total:  # with all answers the difference is known: that is reported
        stream = paired_stream(one if complete else one[:at], second.right[:at], known, ahead=complete)
    return betting.decide_stream(stream, alpha, margin)


def accuracy_interval(
    order: QuestionOrder, answers: OrderedAnswers, alpha: float = ALPHA
) -> tuple[float, float]:
    """Confidence sequence of one run's accuracy over all N questions, 0-1."""
    if not len(answers):
        return 0.0, 1.0
    low, high = betting.confidence_sequence(
        accuracy_stream(answers.right, KnownQuestions(len(order), order.ease, order.key)), alpha
    )
    return max(0.0, low), min(1.0, high)


def compare_prefixes(
    order: QuestionOrder,
    first: pl.DataFrame,
    second: pl.DataFrame,
    alpha: float = ALPHA,
    margin: float | None = MARGIN,
) -> Decision:
    """Two runs' predictions along one order, on the questions both have from its beginning. RunError where
    they share none.
    """
    one, other = answers_in_order(order, first), answers_in_order(order, second)
    if not min(len(one), len(other)):
        raise RunError("the runs share no beginning of the random order; evaluate both with --until-decided")
    return decide_on_answers(order, one, other, alpha, margin)
