"""Runs that stopped early: what the first n questions of the random order show about two runs or one.

In: the order (ids, keys and ease of all N questions) and predictions frames with its beginning, or all of it.
Out: a ``Decision``, or an interval for an accuracy. Applies ``betting`` to frames. Knows nothing of words or
run directories.

Nothing is claimed about subjects: each has few questions among n, and the stopping rule ignores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.analysis.sequential import betting
from kmmlu_fast.analysis.sequential.betting import ALPHA, MARGIN, Decision, Population
from kmmlu_fast.analysis.sequential.control_variate import (
    AnswerStream,
    KnownQuestions,
    accuracy_stream,
    paired_stream,
)
from kmmlu_fast.analysis.sequential.like_population import decide_like
from kmmlu_fast.analysis.sequential.sampling_weights import DrawnWeights
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.data.difficulty import public_ease


@dataclass(frozen=True, slots=True)
class QuestionOrder:
    """All N questions of a run in the order of asking."""

    ids: tuple[str, ...]
    key: NDArray[np.int64]  # (N,) the right option's position
    ease: NDArray[np.float64] | None  # (N,) from public runs, if they have these questions
    seed: int
    weights: DrawnWeights | None = None  # of an adaptive order; None: every question was as likely

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class OrderedAnswers:
    """One run's answers along an order, up to the first missing one."""

    right: NDArray[np.bool_]
    margin: NDArray[np.float64]  # nats; NaN if there is none

    def __len__(self) -> int:
        return len(self.right)


def make_question_order(
    ids: Sequence[str],
    keys: Sequence[str],
    seed: int,
    public: bool = True,
    weights: DrawnWeights | None = None,
) -> QuestionOrder:
    """``ids`` and their keys (letters) in the order of asking. ``public``: whether the packaged difficulty
    covers this exam. ``weights``: those an adaptive order was drawn with.
    """
    places = np.unique(np.asarray(keys), return_inverse=True)[1].astype(np.int64)
    return QuestionOrder(tuple(ids), places, public_ease(ids) if public else None, seed, weights)


def restrict_question_order(order: QuestionOrder, without: frozenset[str]) -> QuestionOrder:
    """The order of the other questions: as random as the order of all."""
    kept = np.array([question_id not in without for question_id in order.ids], dtype=bool)
    ids = tuple(question_id for question_id in order.ids if question_id not in without)
    ease = None if order.ease is None else order.ease[kept]
    weights = None if order.weights is None else order.weights.select_questions(kept)
    return QuestionOrder(ids, order.key[kept], ease, order.seed, weights)


def answers_in_order(order: QuestionOrder, predictions: pl.DataFrame) -> OrderedAnswers:
    """The predictions' answers along the order, up to the first question without one."""
    columns = predictions.select("question_id", "correct", pl.col("margin").fill_null(float("nan")))
    answers = {question_id: (right, margin) for question_id, right, margin in columns.iter_rows()}
    rights, margins = [], []
    for question_id in order.ids:
        if question_id not in answers:
            break
        right, margin = answers[question_id]
        rights.append(right)
        margins.append(margin)
    return OrderedAnswers(np.array(rights, dtype=bool), np.array(margins, dtype=np.float64))


def describe_questions(order: QuestionOrder, margin: NDArray[np.float64] | None = None) -> KnownQuestions:
    """What is known about the order's questions. ``margin``: (N,) of a complete run, such as the base."""
    return KnownQuestions(len(order), order.ease, order.key, margin, order.weights)


def decide_on_answers(
    order: QuestionOrder,
    first: OrderedAnswers,
    second: OrderedAnswers,
    alpha: float = ALPHA,
    margin: float | None = MARGIN,
    ahead: bool | None = None,
    population: Population = "like",
    equal_alpha: float | None = None,
    stream: AnswerStream | None = None,
) -> Decision:
    """Second against first, as of the question that decided it; if undecided, as of the last that both have.

    ``population``: whether the verdict is about questions like these, or about exactly these N.
    ``equal_alpha``: the level of "equal", if it is not ``alpha``.
    ``ahead``: whether the first run was complete before the second started; default: if it is complete.
    ``stream``: ``stream_of_answers`` of these arguments, if it is known: it does not depend on the levels.
    """
    total = len(order)
    n = min(len(first), len(second))
    if stream is None:
        stream = stream_of_answers(order, first, second, ahead)
    if population == "like":
        decision = decide_like(stream, alpha, margin, equal_alpha)
        at = decision.decided_at
        if at is None or at >= n:
            return decision
        stream = stream_of_answers(order, first, second, ahead, most=at)
        return decide_like(stream, alpha, margin, equal_alpha)
    _, at = betting.first_verdict(stream, alpha, margin, equal_alpha)
    if at is not None and at < n < total:  # with all N answers, the exact difference is reported instead
        stream = stream_of_answers(order, first, second, ahead, most=at)
    return betting.decide_stream(stream, alpha, margin, equal_alpha)


def stream_of_answers(
    order: QuestionOrder,
    first: OrderedAnswers,
    second: OrderedAnswers,
    ahead: bool | None = None,
    most: int | None = None,
) -> AnswerStream:
    """Second less first along the order, ``most`` answers at most; ``ahead`` as in ``decide_on_answers``."""
    complete = len(first) == len(order) and ahead is not False
    n = min(len(first), len(second), len(order) if most is None else most)
    known = describe_questions(order, first.margin if complete else None)
    one = first.right if complete else first.right[:n]
    return paired_stream(one, second.right[:n], known, ahead=complete)


def accuracy_interval(
    order: QuestionOrder, answers: OrderedAnswers, alpha: float = ALPHA
) -> tuple[float, float]:
    """Confidence sequence of one run's accuracy over all N questions, 0-1."""
    if not len(answers):
        return 0.0, 1.0
    known = describe_questions(order)
    low, high = betting.confidence_sequence(accuracy_stream(answers.right, known), alpha)
    return max(0.0, low), min(1.0, high)


def compare_prefixes(
    order: QuestionOrder,
    first: pl.DataFrame,
    second: pl.DataFrame,
    alpha: float = ALPHA,
    margin: float | None = MARGIN,
    ahead: bool | None = None,
    population: Population = "like",
    equal_alpha: float | None = None,
) -> Decision:
    """Two runs' predictions along one order, on the questions that both have from its beginning. RunError if
    they share none.
    """
    one, other = answers_in_order(order, first), answers_in_order(order, second)
    if not min(len(one), len(other)):
        raise RunError(
            "the runs share no question at the beginning of the random order; evaluate both with"
            " --until-decided"
        )
    return decide_on_answers(order, one, other, alpha, margin, ahead, population, equal_alpha)
