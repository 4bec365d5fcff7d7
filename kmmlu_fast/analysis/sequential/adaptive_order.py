"""The adaptive order of an evaluation: begun from a finished base, redrawn as adapters answer.

In: a ``QuestionOrder``, the base's complete answers and what the adapters have answered along it. Out: the
same questions in another order, with the weights they were drawn with. The order depends on the seed and
these answers alone, so a restart draws it again. Also its columns in a stored order. Knows nothing of run
directories.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from kmmlu_fast.analysis.sequential.control_variate import expect_right
from kmmlu_fast.analysis.sequential.question_order import (
    OrderedAnswers,
    QuestionOrder,
    describe_questions,
    make_question_order,
)
from kmmlu_fast.analysis.sequential.sampling_weights import (
    DrawnWeights,
    Weights,
    draw_order,
    make_change_weights,
    make_start_weights,
)
from kmmlu_fast.core.errors import RunError

_COLUMN = re.compile(r"weight_(\d+)")


def begin_adaptive_order(order: QuestionOrder, base: OrderedAnswers) -> QuestionOrder:
    """The questions drawn by the base's margins. ``order``: the uniform one; ``base``: all its answers."""
    weights = make_start_weights(base.margin)
    return _redraw_from(order, 0, weights)


def redraw_remaining(
    order: QuestionOrder, base: OrderedAnswers, answers: Sequence[OrderedAnswers], place: int
) -> QuestionOrder:
    """The questions from ``place`` on drawn anew, by where the adapters' first ``place`` answers say that an
    answer may change. ``base``: all its answers, in this order.
    """
    known = describe_questions(order, base.margin)
    expected = [expect_right(base.right, some.right[:place], known) for some in answers]
    return _redraw_from(order, place, make_change_weights(expected))


def is_continued_by(order: QuestionOrder, longer: QuestionOrder) -> bool:
    """Whether ``longer`` is ``order``, or ``order`` redrawn later on."""
    if order.weights is None or longer.weights is None:
        same_key = len(order) == len(longer) and np.array_equal(order.key, longer.key)
        return order.weights is longer.weights and order.ids == longer.ids and same_key
    starts, later = order.weights.starts, longer.weights.starts
    if later[: len(starts)] != starts:
        return False
    end = later[len(starts)] if len(later) > len(starts) else len(order)
    if order.ids[:end] != longer.ids[:end]:
        return False
    where = {question_id: place for place, question_id in enumerate(longer.ids)}
    places = np.array([where.get(question_id, -1) for question_id in order.ids])
    if (places < 0).any():
        return False
    if not np.array_equal(order.key, longer.key[places]):
        return False
    pairs = zip(order.weights.values, longer.weights.values, strict=False)
    return all(np.array_equal(value, other[places]) for value, other in pairs)


def weights_to_columns(weights: DrawnWeights | None) -> list[pl.Series]:
    """Columns ``weight_<place>`` for a stored order; none for a uniform one."""
    if weights is None:
        return []
    pairs = zip(weights.starts, weights.values, strict=True)
    return [pl.Series(f"weight_{start}", value, dtype=pl.UInt8) for start, value in pairs]


def weights_from_columns(stored: pl.DataFrame, where: str) -> DrawnWeights | None:
    """The weights in a stored order; None if it is uniform. RunError if they are not what an evaluation
    wrote; ``where`` names the file.
    """
    columns = {int(found[1]): name for name in stored.columns if (found := _COLUMN.fullmatch(name))}
    if not columns:
        return None
    starts = tuple(sorted(columns))
    values = []
    for start in starts:
        column = stored[columns[start]]
        if column.dtype != pl.UInt8 or column.null_count() or not (column > 0).all():
            raise RunError(
                f"{where}: {columns[start]} is not a column of weights from 1 to 255; the file was damaged or"
                " edited: run eval with --overwrite"
            )
        values.append(column.to_numpy())
    if starts[0] != 0 or starts[-1] >= len(stored):
        raise RunError(
            f"{where}: has weights from question {starts[0]:,} to {starts[-1]:,} on, not from the first; the"
            " file was damaged or edited: run eval with --overwrite"
        )
    return DrawnWeights(starts, tuple(values))


def _redraw_from(order: QuestionOrder, place: int, weights: Weights) -> QuestionOrder:
    """``order`` redrawn from ``place`` on with ``weights``, (N,) in its order."""
    drawn = place + draw_order(weights[place:], order.seed, place)
    moved = np.concatenate([np.arange(place), drawn])
    earlier = DrawnWeights((), ()) if order.weights is None else order.weights
    values = [*earlier.values, weights]
    return QuestionOrder(
        tuple(order.ids[int(old)] for old in moved),
        order.key[moved],
        None if order.ease is None else order.ease[moved],
        order.seed,
        DrawnWeights((*earlier.starts, place), tuple(value[moved] for value in values)),
    )


def read_shared_order(stored: Sequence[tuple[str, pl.DataFrame]], seed: int, public: bool) -> QuestionOrder:
    """The order that some runs share, from what each has stored: (its name, the order). RunError if their
    orders differ in what was asked.
    """
    orders = [
        make_question_order(
            frame["question_id"].to_list(),
            frame["answer"].to_list(),
            seed,
            public,
            weights_from_columns(frame, name),
        )
        for name, frame in stored
    ]
    longest = max(range(len(orders)), key=lambda place: _count_redraws(orders[place]))
    for (name, _), order in zip(stored, orders, strict=True):
        if not is_continued_by(order, orders[longest]):
            raise RunError(
                f"{stored[longest][0]} and {name} stopped early in two random orders, or over different"
                " questions; evaluate both with the same --seed and questions, or finish one of them"
            )
    return orders[longest]


def _count_redraws(order: QuestionOrder) -> int:
    return 0 if order.weights is None else len(order.weights.starts)
