"""The one order that all states of an evaluation follow, chosen when it starts.

In: ``--order``, the uniform order, what the states' run directories hold, and the base's answers if it is
complete. Out: a ``QuestionOrder``; RunError if the stored orders do not agree. Opens nothing.

``auto`` is adaptive if the base is complete, because an adaptive order is drawn from its margins and asks for
the base's answer to every question. What was begun in the uniform order continues in it. In a small exam
``auto`` stays uniform: what can be decided there is decided within a few hundred questions, and the uniform
order does that a tenth sooner (real answers of the demo model to 1,800 questions, an adapter that turns As
into other letters, 200 orders each: 348 questions on average, adaptive 402). In all of KMMLU the adaptive
order takes about a third fewer questions for simulated adapters that change answers where the base's margin
is small, and about as many as the uniform one, give or take a tenth, for those that change answers anywhere
(``bench.decide --adapters``). With the demo model and 12,030 questions, an adapter of about one point was
decided after 1,188 and 2,261 questions instead of 1,949 and 5,320 (two seeds, ``--engine --orders``).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from kmmlu_fast.analysis.sequential.adaptive_order import (
    begin_adaptive_order,
    is_continued_by,
    weights_from_columns,
    weights_to_columns,
)
from kmmlu_fast.analysis.sequential.question_order import (
    QuestionOrder,
    answers_in_order,
    make_question_order,
)
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.runs.store import RunStore

_SMALL_EXAM = 2_000  # questions


def choose_question_order(
    config: EvalConfig, uniform: QuestionOrder, stores: Mapping[str, RunStore], base: pl.DataFrame | None
) -> QuestionOrder:
    """The order to ask in. ``stores``: run directories that are not complete; ``base``: predictions of the
    base, if it is complete.
    """
    if not config.until_decided or config.order == "uniform":
        return uniform  # ``RunStore.begin_prefix`` refuses a directory that was asked in another order
    stored = {name: order for name, store in stores.items() if (order := store.stored_order()) is not None}
    adaptive = {
        name: _read_adaptive_order(stores[name], frame, uniform)
        for name, frame in stored.items()
        if "weight_0" in frame.columns
    }
    if base is None:
        if adaptive:
            name = next(iter(adaptive))
            raise RunError(
                f"{stores[name].path}: was asked in the adaptive order, which needs a finished base; finish"
                " the base first (the same command without --adapter and --until-decided), or give"
                " --order adaptive, which does both"
            )
        return uniform
    begun = [name for name in stored if name not in adaptive]
    if begun and (adaptive or config.order == "adaptive"):
        raise RunError(
            f"{stores[begun[0]].path}: was asked in the uniform order; give --order uniform (and evaluate it"
            " apart from adapters asked in the adaptive order), or another --output-dir"
        )
    if begun:
        return uniform
    if not adaptive and len(uniform) < _SMALL_EXAM and config.order == "auto":
        return uniform
    if not adaptive:
        return begin_adaptive_order(uniform, answers_in_order(uniform, base))
    longest = max(adaptive, key=lambda name: len(adaptive[name].weights.starts))  # type: ignore[union-attr]
    for name, begun_order in adaptive.items():
        if not is_continued_by(begun_order, adaptive[longest]):
            raise RunError(
                f"{stores[name].path} and {stores[longest].path}: stopped early in two adaptive orders,"
                " because they were evaluated apart; go on evaluating them apart, or finish one of them (the"
                " same command without --until-decided)"
            )
    return adaptive[longest]


def order_to_frame(order: QuestionOrder, keys: Mapping[str, str]) -> pl.DataFrame:
    """The order as a run directory stores it. ``keys``: the right letter by question id."""
    frame = pl.DataFrame({"question_id": order.ids, "answer": [keys[name] for name in order.ids]})
    return frame.hstack(weights_to_columns(order.weights))


def _read_adaptive_order(store: RunStore, frame: pl.DataFrame, uniform: QuestionOrder) -> QuestionOrder:
    seed = store.stored_seed()
    if seed != uniform.seed:
        raise RunError(
            f"{store.path}: was asked in the adaptive order of --seed {seed}; give the same seed, finish the"
            " pass without stopping, or give another --output-dir"
        )
    ids, answers = frame["question_id"].to_list(), frame["answer"].to_list()
    if set(ids) != set(uniform.ids):
        raise RunError(
            f"{store.path}: its order is not of these questions; the file was damaged or edited: run eval"
            " with --overwrite"
        )
    weights = weights_from_columns(frame, str(store.path))
    return make_question_order(ids, answers, seed, uniform.ease is not None, weights)
