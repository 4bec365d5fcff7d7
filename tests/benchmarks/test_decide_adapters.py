"""bench.decide --adapters: adapters asked along one adaptive order."""

from __future__ import annotations

import numpy as np

from bench.decide_adapters import Base, Verdict, ask_adaptively
from bench.decide_like import SmallBase
from kmmlu_fast.analysis.sequential import betting
from kmmlu_fast.analysis.sequential.adaptive_order import begin_adaptive_order, redraw_remaining
from kmmlu_fast.analysis.sequential.question_order import OrderedAnswers, QuestionOrder, stream_of_answers
from kmmlu_fast.analysis.sequential.sampling_weights import list_look_places, list_redraw_places
from kmmlu_fast.analysis.sequential.several import decide_by_holm

MARGIN = 0.05


def ask_look_by_look(base: Base, adapters: list[np.ndarray], seed: int) -> list[Verdict]:
    """As an evaluation does it: at each look everything is computed from the answers that are there."""
    order = QuestionOrder(tuple(base.ids), base.key, base.ease, seed)
    order = begin_adaptive_order(order, OrderedAnswers(base.right, base.margin))
    names = [str(number) for number in range(len(adapters))]
    asked, left = dict.fromkeys(names, 0), names
    for look in list_look_places(base.total):
        asked |= dict.fromkeys(left, look)
        places = np.array([base.ids.index(name) for name in order.ids])
        first = OrderedAnswers(base.right[places], base.margin[places])
        answers = {name: OrderedAnswers(adapters[int(name)][places], first.margin) for name in names}

        def decide(name: str, level: float, equal_level: float) -> Verdict:
            stream = stream_of_answers(order, first, answers[name], most=asked[name])  # noqa: B023
            return Verdict(*betting.first_verdict(stream, level, MARGIN, equal_level))

        verdicts = decide_by_holm(names, decide)
        left = [name for name in names if verdicts[name].verdict == "undecided"]
        if not left:
            break
        if look in list_redraw_places(base.total):
            order = redraw_remaining(order, first, [answers[name] for name in left], look)
    return [Verdict(verdicts[name].verdict, verdicts[name].at, asked[name]) for name in names]


def test_a_stream_that_is_computed_once_shows_what_each_look_would() -> None:
    base = SmallBase(np.random.default_rng(2), 600)
    adapters = [base.adapter(0.4, difference) for difference in (0.0, 0.15, -0.12, 0.04)]
    found = ask_adaptively(base, adapters, 5, margin=MARGIN)
    assert found == ask_look_by_look(base, adapters, 5)
    assert {verdict.verdict for verdict in found} >= {"better", "worse"}
    assert len({verdict.asked for verdict in found}) > 1
