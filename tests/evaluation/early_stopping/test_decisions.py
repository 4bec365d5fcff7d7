"""Decisions of many adapters: the same as each by itself at its level, and each stream computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kmmlu_fast.analysis.sequential.question_order import (
    OrderedAnswers,
    decide_on_answers,
    make_question_order,
    stream_of_answers,
)
from kmmlu_fast.analysis.sequential.several import decide_by_holm
from kmmlu_fast.core.schema import Question
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.early_stopping import decisions as module
from kmmlu_fast.evaluation.early_stopping.passes import ModelStateProgress
from kmmlu_fast.prompting.tokens import TokenisedQuestion

TOTAL, ADAPTERS = 400, 12


def make_states(draw: np.random.Generator) -> tuple[Any, list[ModelStateProgress]]:
    """A base and adapters that are better by more and more: Holm decides one after the other."""
    ids = [f"q{place}" for place in range(TOTAL)]
    keys = ["ABCD"[place % 4] for place in range(TOTAL)]
    order = make_question_order(ids, keys, 0, public=False)
    questions = {
        name: Question(
            question_id=name,
            subject="Law",
            supercategory="HUMSS",
            split="test",
            row=place,
            question="?",
            options=("1", "2", "3", "4"),
            answer=keys[place],
        )
        for place, name in enumerate(ids)
    }
    asked = [TokenisedQuestion(questions[name], None, 0) for name in order.ids]
    base_right = draw.random(TOTAL) < 0.5
    states = []
    for number in range(ADAPTERS + 1):
        name = f"a{number}" if number else "base"
        right = base_right.copy()
        if number:
            right[draw.random(TOTAL) < 0.03] = False
            right[draw.random(TOTAL) < 0.02 * number] = True
        state = ModelStateProgress(name=name, adapter=None, sink=_Sink(), order=asked)
        for question_id, is_right in zip(order.ids, right, strict=True):
            state.record_answer(question_id, bool(is_right), 1.0)
        states.append(state)
    return order, states


class _Sink:
    def append(self, prediction: Any) -> None:
        raise AssertionError("nothing is asked")


def test_a_stream_is_computed_once_however_often_the_levels_change(monkeypatch: pytest.MonkeyPatch) -> None:
    order, states = make_states(np.random.default_rng(0))
    config = EvalConfig.model_validate(
        {"model": "demo", "adapter": ["a1"], "until_decided": True, "margin": 5.0}
    )
    found = module.InterimDecisions(config, order, {}, TOTAL)
    found.states = states
    streams: list[Any] = []
    levels: set[float] = set()

    def counted(*arguments: Any) -> Any:
        streams.append(arguments)
        return stream_of_answers(*arguments)

    def watched(*arguments: Any) -> Any:
        levels.add(arguments[3])
        return decide_on_answers(*arguments)

    monkeypatch.setattr(f"{module.__name__}.stream_of_answers", counted)
    monkeypatch.setattr(f"{module.__name__}.decide_on_answers", watched)
    assert found.undecided_states() == []
    assert len(streams) == ADAPTERS and len(levels) > 1  # Holm took several levels
    by_name = {state.name: state for state in states}

    def decide_alone(name: str, level: float, equal_level: float) -> Any:
        first, second = (found.state_answers(by_name[each], TOTAL) for each in ("base", name))
        return decide_on_answers(order, first, second, level, 0.05, False, "like", equal_level)

    assert found.latest == decide_by_holm([state.name for state in states[1:]], decide_alone, found.level)
    assert {decision.verdict for decision in found.latest.values()} >= {"better", "undecided"}


def test_new_answers_make_a_new_stream() -> None:
    order, states = make_states(np.random.default_rng(1))
    config = EvalConfig.model_validate({"model": "demo", "adapter": ["a1"], "until_decided": True})
    found = module.InterimDecisions(config, order, {}, TOTAL)
    found.states = states
    late = states[-1]
    answered = dict(late.right)
    late.right, late.reach = {}, 0
    for question_id in order.ids[:100]:
        late.record_answer(question_id, answered[question_id], 1.0)
    found.undecided_states()
    assert found.latest[late.name].answers <= 100
    for question_id in order.ids[100:]:
        late.record_answer(question_id, answered[question_id], 1.0)
    found.undecided_states()
    first = OrderedAnswers(*_columns(states[0], order.ids))
    second = OrderedAnswers(*_columns(late, order.ids))
    alone = decide_on_answers(order, first, second, found.latest[late.name].alpha, 0.01, False)
    assert found.latest[late.name].low == pytest.approx(alone.low)


@pytest.mark.parametrize(("forecast", "says"), [(1, "may be decided soon"), (90, "about 90 more")])
def test_a_forecast_that_is_passed_names_no_number(
    monkeypatch: pytest.MonkeyPatch, forecast: int, says: str
) -> None:
    order, states = make_states(np.random.default_rng(1))
    config = EvalConfig.model_validate({"model": "demo", "adapter": ["a1"], "until_decided": True})
    found = module.InterimDecisions(config, order, {}, TOTAL)
    state = states[1]
    found.states = [states[0], state]
    answered = dict(state.right)
    state.right, state.reach = {}, 0
    for question_id in order.ids[:200]:
        state.record_answer(question_id, answered[question_id], 1.0)
    monkeypatch.setattr(f"{module.__name__}.forecast_answers", lambda stream, *_: len(stream) + forecast)
    found.undecided_states()
    assert found.shown[state.name].endswith(says)


def _columns(state: ModelStateProgress, ids: tuple[str, ...]) -> tuple[Any, Any]:
    return np.array([state.right[name] for name in ids]), np.ones(len(ids))
