"""An evaluation that may stop early: base and adapters advance together along one random order until the
question is decided.

In: a plan with its questions in random order, model states, and a session that opens engines and run
directories. Out: one ``Run`` per state, complete or a marked prefix (``Run.prefix``) that a full pass can
continue. The deciding question depends only on the stored answers in order, so a restart gives the same one.

If one engine serves all states, looks stream through it. If the engine must hold an adapter's weights
(swapped or merged), each look is asked of one state after the other, and grows until asking takes as long as
loading the weights.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import polars as pl

from kmmlu_fast.analysis.accuracy import summarise_predictions
from kmmlu_fast.analysis.error_spending import reserve_early_levels
from kmmlu_fast.analysis.reasoning import compare_reasoning
from kmmlu_fast.analysis.sequential.betting import ALPHA, UNDECIDED, Decision
from kmmlu_fast.analysis.sequential.question_order import (
    OrderedAnswers,
    QuestionOrder,
    accuracy_interval,
    decide_on_answers,
    make_question_order,
)
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.progress import Meter
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation.early_stopping.passes import (
    GROWTH,
    ModelStateProgress,
    ask_in_passes,
    interim_sample_sizes,
)
from kmmlu_fast.evaluation.early_stopping.record import draw_interval_line, early_stop_outcome
from kmmlu_fast.evaluation.plan import EvalPlan
from kmmlu_fast.evaluation.runner import describe_finish
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import RunStore, load_run_directory

_PRECISE_GROWTH = 1.2  # of looks: one state's interval narrows slowly, so 1.5x would overshoot


class EngineProvider(Protocol):
    """Opens engines and run directories (``evaluation.session``)."""

    def serves_adapter(self, adapter: Adapter) -> bool: ...

    def open_store(self, adapter: Adapter | None) -> RunStore: ...

    def open_engine_for(
        self, adapter: Adapter | None, name: str, prove: bool = True
    ) -> tuple[Engine, dict[str, Any] | None]: ...

    def extra_metrics(self, frame: pl.DataFrame, adapter: Adapter | None) -> dict[str, Any]: ...

    def save_probe(self, store: RunStore, engine: Engine) -> None: ...


class EarlyStoppingEvaluation:
    """One evaluation: its states, the decisions so far, and what to ask next."""

    def __init__(self, plan: EvalPlan, engines: EngineProvider, adapters: Sequence[Adapter | None]) -> None:
        """Open every state's run directory and read what it holds."""
        self._plan, self._engines, self._config = plan, engines, plan.config
        questions = [item.question for item in plan.asked]
        public = plan.exam.is_kmmlu and plan.source != "sample" and self._config.split == "test"
        ids = [question.question_id for question in questions]
        keys = [question.answer for question in questions]
        self._order: QuestionOrder = make_question_order(ids, keys, self._config.seed, public)
        self._places = {question_id: place for place, question_id in enumerate(plan.question_ids)}
        self._most = min(len(ids), self._config.questions or self._config.max_questions or len(ids))
        self._margin = self._config.margin / 100 or None
        self._stores: dict[str, RunStore] = {}
        self._shifts: dict[str, dict[str, Any] | None] = {}
        self._counters: dict[str, Any] = {}
        self._decisions: dict[str, Decision] = {}
        self._seconds: dict[str, float] = {}
        self._finished: dict[str, Run] = {}
        self._looked: dict[str, int] = {}  # questions at the last look
        self._shown: dict[str, str] = {}  # interval at the last look
        self.states: list[ModelStateProgress] = []
        try:
            for adapter in adapters:
                self.states.append(self._open_state(adapter))
        except BaseException:
            self._close_stores()
            raise
        self._levels = self._error_levels()

    def _error_levels(self) -> dict[str, float]:
        """The error level of each adapter's comparison, by name: on test, what all comparisons with this base
        have left.
        """
        even = ALPHA / max(1, len(self._plan.adapters))
        levels = {adapter.name: even for adapter in self._plan.adapters}
        base = self._stores.get("base")
        adapters = [(adapter.digest, adapter.name) for adapter in self._plan.adapters]
        if base is None or not self._config.until_decided or self._config.split != "test" or not adapters:
            return levels
        spent = reserve_early_levels(base.path, adapters)
        return {adapter.name: min(even, spent[adapter.digest]) for adapter in self._plan.adapters}

    def run(self) -> list[Run]:
        """Ask until everything is decided, then write the runs."""
        try:
            if self._config.until_decided:
                self._advance_states(self.states, self._undecided_states)
            else:
                for state in self.states:
                    self._advance_states([state], partial(self._imprecise_states, state))
            return [self._finish_state(state) for state in self.states]
        finally:
            self._close_stores()

    @property
    def _takes_turns(self) -> bool:
        """Whether the engine must hold some adapter's weights, so that states are asked in turn."""
        return not all(self._engines.serves_adapter(adapter) for adapter in self._plan.adapters)

    def _close_stores(self) -> None:
        for store in self._stores.values():
            store.close()

    def _open_state(self, adapter: Adapter | None) -> ModelStateProgress:
        name = adapter.name if adapter else "base"
        store = self._engines.open_store(adapter)
        self._stores[name] = store
        state = ModelStateProgress(
            name=name, adapter=adapter, sink=None if store.complete else store, order=self._plan.asked
        )
        if store.complete:
            self._finished[name] = load_run_directory(store.path)
            log_note(f"{name}: finished before, read from {store.path}")
            frame = self._finished[name].frame
        else:
            answers = [item.question.answer for item in self._plan.asked]
            order = pl.DataFrame({"question_id": self._order.ids, "answer": answers})
            start = {"seed": self._order.seed, "total": len(order), "questions": 0, "accuracy": [0.0, 1.0]}
            store.begin_prefix(order, start)
            frame = store.stored_predictions()
            if len(frame):
                count = f"{len(frame):,} of {len(order):,} questions"
                log_note(f"{name}: continuing {store.path}: {count} were answered before")
        for question_id, right, margin in frame.select("question_id", "correct", "margin").iter_rows():
            state.record_answer(question_id, right, margin)
        return state

    def _state_answers(self, state: ModelStateProgress) -> OrderedAnswers:
        ids = self._order.ids[: state.reach]
        right = np.array([state.right[name] for name in ids], dtype=bool)
        return OrderedAnswers(right, np.array([state.margin[name] for name in ids], dtype=np.float64))

    def _undecided_states(self) -> list[ModelStateProgress]:
        """The states that must still be asked. Decides on the answers so far and logs the intervals."""
        base = self.states[0]
        for state in self.states[1:]:
            n = min(base.reach, state.reach, self._most)
            if state.name in self._decisions or n <= self._looked.get(state.name, 0):
                continue
            self._looked[state.name] = n
            decision = self._decide_state(state)
            low, high, verdict = decision.low, decision.high, str(decision.verdict)
            interval = f"{draw_interval_line(low, high)} {100 * low:+.2f} to {100 * high:+.2f} pp"
            self._shown[state.name] = interval
            if decision.decided_at is not None:
                verdict += f" since question {decision.decided_at:,}"
            log_note(f"{state.name}: {n:,} of {decision.total:,} questions: {interval}, {verdict}")
            if decision.verdict != UNDECIDED:
                self._decisions[state.name] = decision
        undecided = [state for state in self.states[1:] if state.name not in self._decisions]
        left = [state for state in undecided if min(state.reach, base.reach) < self._most]
        return [base, *left] if left else []

    def _decide_state(self, state: ModelStateProgress) -> Decision:
        """The adapter compared with the base, as of the deciding question if there is one."""
        base = self.states[0]
        n = min(base.reach, state.reach, self._most)
        # Not if the base became complete in this session: the decision must not depend on the look sizes.
        ahead = base.sink is None
        first = self._state_answers(base) if ahead else _first_answers(self._state_answers(base), n)
        return decide_on_answers(
            self._order,
            first,
            _first_answers(self._state_answers(state), n),
            self._levels.get(state.name, ALPHA),
            self._margin,
            ahead,
            self._config.population,
        )

    def _imprecise_states(self, state: ModelStateProgress) -> list[ModelStateProgress]:
        """The state itself while its interval is too wide and questions are left."""
        if state.reach >= self._most:
            return []
        half_width = self._config.until_precise
        if half_width is None or not state.reach:
            return [state]
        low, high = accuracy_interval(self._order, self._state_answers(state))
        interval = f"accuracy {100 * low:.2f} to {100 * high:.2f} %"
        self._shown[state.name] = interval
        if self._looked.get(state.name) != state.reach:
            log_note(f"{state.name}: {state.reach:,} of {len(self._order):,} questions: {interval}")
        self._looked[state.name] = state.reach
        return [] if high - low <= 2 * half_width / 100 else [state]

    def _advance_states(self, states: list[ModelStateProgress], go_on: Any) -> None:
        """Ask the states until ``go_on`` returns none."""
        growth = _PRECISE_GROWTH if self._config.until_precise is not None else GROWTH
        least = 0.0  # questions that a turn must add to be worth starting an engine
        while wanted := [state for state in go_on() if state.sink is not None and state.reach < self._most]:
            reached = min(state.reach for state in wanted)
            looks = [end for end in interim_sample_sizes(self._most, growth) if end > reached]
            if not self._takes_turns:
                self._ask_states(wanted, looks, go_on)
            elif len(wanted) == 1 or wanted[0].adapter is not None:  # the base is complete: no turns to take
                self._ask_states(wanted[:1], looks, go_on)
            else:
                end = next((end for end in looks if end >= reached + least), self._most)
                before, began = sum(state.asked_now for state in wanted), time.monotonic()
                starts = [self._ask_states([state], [end], lambda: []) for state in wanted]
                asking = max(time.monotonic() - began - sum(starts), 1e-9)
                rate = (sum(state.asked_now for state in wanted) - before) / asking
                # The last start is the typical one; the first may have included the engine's own start.
                least = starts[-1] * rate

    def _ask_states(self, states: list[ModelStateProgress], looks: list[int], go_on: Any) -> float:
        """Ask in one stream through one engine. Returns the seconds until the engine was open."""
        began = time.monotonic()
        engine: Engine | None = None
        for state in sorted(states, key=lambda state: state.adapter is not None):
            new = state.name not in self._shifts
            if new or engine is None:
                engine, shift = self._engines.open_engine_for(state.adapter, state.name, new)
                self._shifts.setdefault(state.name, shift)
                if new and state.adapter is None:
                    self._engines.save_probe(self._stores[state.name], engine)
        assert engine is not None  # there are states
        opened = time.monotonic() - began
        before = {state.name: state.asked_now for state in states}
        reached = sum(state.reach for state in states)
        meter = Meter(self._most * len(states) - reached, " and ".join(state.name for state in states))

        def progress() -> tuple[int, str]:
            intervals = "; ".join(self._shown[state.name] for state in states if state.name in self._shown)
            return sum(state.asked_now - before[state.name] for state in states), intervals

        def show_progress() -> None:
            meter.update(*progress())

        begun = time.monotonic()
        try:
            served = not self._takes_turns
            ask_in_passes(
                engine, self._plan.method, states, looks, self._places, go_on, served, show_progress
            )
        finally:
            meter.close(*progress())
            seconds = time.monotonic() - begun
            added = {state.name: state.asked_now - before[state.name] for state in states}
            for name, count in added.items():  # in proportion: they share the engine's batches
                share = seconds * count / max(1, sum(added.values()))
                self._seconds[name] = self._seconds.get(name, 0.0) + share
            self._counters = dict(engine.stats())
        return opened

    def _finish_state(self, state: ModelStateProgress) -> Run:
        if state.name in self._finished:
            return self._finished[state.name]
        store, decision = self._stores[state.name], self._decisions.get(state.name)
        if decision is None and state.adapter is not None and self.states[0].adapter is None:
            decision = self._decide_state(state)
        outcome = early_stop_outcome(state, self._seconds.get(state.name, 0.0), decision)
        outcome["notes"] = self._plan.notes
        outcome["ahead"] = self.states[0].sink is None
        outcome["engine"] = self._counters
        outcome["adapter_shift"] = self._shifts.get(state.name)
        if state.reach == len(self._order):

            def metrics(frame: pl.DataFrame) -> dict[str, Any]:
                extra = self._engines.extra_metrics(frame, state.adapter)
                values = {**summarise_predictions(frame), **extra, **outcome}
                reasoning = compare_reasoning(frame, seconds=outcome["full_pass"]["seconds"])
                if reasoning:
                    values["reasoning"] = reasoning
                return values

            return store.finish(self._plan.question_ids, metrics, describe_finish(self._counters))
        prefix = {
            "seed": self._order.seed,
            "total": len(self._order),
            "questions": state.reach,
            "accuracy": list(accuracy_interval(self._order, self._state_answers(state))),
            **outcome,
        }
        return store.pause(prefix)


def _first_answers(answers: OrderedAnswers, n: int) -> OrderedAnswers:
    return OrderedAnswers(answers.right[:n], answers.margin[:n])
