"""An evaluation that may stop early: base and adapters advance together along one random order until the
question is settled.

In: a plan whose questions stand in the random order, model states, and a session that opens their engines and
run directories. Out: a ``Run`` a state: complete, or a prefix that says so (``Run.prefix``) and that the full
pass continues from. Which question decided is a function of the stored answers in order alone: killed and
started again, it is the same.

Where one engine serves all states, looks stream through it; where an adapter's weights must be in the engine
(swapped or merged), a look is asked of one state after the other, and grows until asking takes as long as
putting the weights in does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from kmmlu_fast.analysis.accuracy import summarise_predictions
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
from kmmlu_fast.machine import environment
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import RunStore, load_run_directory

_PRECISE_GROWTH = (
    1.2  # of looks: one state's interval narrows slowly, and half as many again would be too many
)


class EngineProvider(Protocol):
    """What opens engines and run directories (``session``)."""

    def serves_adapter(self, adapter: Adapter) -> bool: ...

    def open_store(self, adapter: Adapter | None) -> RunStore: ...

    def open_engine_for(
        self, adapter: Adapter | None, name: str, prove: bool = True
    ) -> tuple[Engine, dict[str, Any] | None]: ...

    def extra_metrics(self, frame: pl.DataFrame, adapter: Adapter | None) -> dict[str, Any]: ...

    def save_probe(self, store: RunStore, engine: Engine) -> None: ...


class EarlyStoppingEvaluation:
    """One evaluation: its states, what is decided so far, and what is asked next."""

    def __init__(self, plan: EvalPlan, engines: EngineProvider, adapters: Sequence[Adapter | None]) -> None:
        """Open every state's run directory and read what it holds."""
        self._plan, self._engines, self._config = plan, engines, plan.config
        questions = [item.question for item in plan.asked]
        public = plan.exam.is_kmmlu and plan.source != "sample" and self._config.split == "test"
        ids, keys = (
            [question.question_id for question in questions],
            [question.answer for question in questions],
        )
        self._order: QuestionOrder = make_question_order(ids, keys, self._config.seed, public)
        self._places = {question_id: place for place, question_id in enumerate(plan.question_ids)}
        self._most = min(len(ids), self._config.questions or self._config.max_questions or len(ids))
        self._alpha = ALPHA / max(1, len(plan.adapters))
        self._margin = self._config.margin / 100 or None
        self._stores: dict[str, RunStore] = {}
        self._moved: dict[str, dict[str, Any] | None] = {}
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

    def run(self) -> list[Run]:
        """Ask until it is settled, then write what was found."""
        try:
            if self._config.until_decided:
                self._advance_states(self.states, self._undecided_states)
            else:
                for state in self.states:
                    self._advance_states(
                        [state], lambda state=state: [] if self._is_precise_enough(state) else [state]
                    )  # type: ignore[misc]
            return [self._finish_state(state) for state in self.states]
        finally:
            self._close_stores()

    @property
    def _takes_turns(self) -> bool:
        """Whether some adapter's weights must be in the engine: states are asked one after the other then."""
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
            order = pl.DataFrame(
                {
                    "question_id": self._order.ids,
                    "answer": [item.question.answer for item in self._plan.asked],
                }
            )
            store.begin_prefix(
                order, {"seed": self._order.seed, "total": len(order), "questions": 0, "accuracy": [0.0, 1.0]}
            )
            frame = store.stored_predictions()
            if len(frame):
                count = f"{len(frame):,} of {len(order):,} questions"
                log_note(f"{name}: continuing {store.path}: {count} were answered before")
        for question_id, right, margin in frame.select("question_id", "correct", "margin").iter_rows():
            state.record_answer(question_id, right, margin)
        return state

    def _state_answers(self, state: ModelStateProgress) -> OrderedAnswers:
        ids = self._order.ids[: state.reach]
        margins = [np.nan if (margin := state.margin[name]) is None else margin for name in ids]
        return OrderedAnswers(
            np.array([state.right[name] for name in ids], dtype=bool), np.array(margins, dtype=np.float64)
        )

    def _undecided_states(self) -> list[ModelStateProgress]:
        """The states that still have to be asked; looks at the answers so far, and says what they show."""
        base = self.states[0]
        for state in self.states[1:]:
            n = min(base.reach, state.reach, self._most)
            if state.name in self._decisions or n <= self._looked.get(state.name, 0):
                continue
            self._looked[state.name] = n
            found = self._decide_state(state)
            self._shown[state.name] = (
                f"{draw_interval_line(found.low, found.high)} {100 * found.low:+.2f} to {100 * found.high:+.2f} pp"
            )
            said = (
                found.verdict
                if found.decided_at is None
                else f"{found.verdict} since question {found.decided_at:,}"
            )
            log_note(f"{state.name}: {n:,} of {found.total:,} questions: {self._shown[state.name]}, {said}")
            if found.verdict != UNDECIDED:
                self._decisions[state.name] = found
        left = [
            s
            for s in self.states[1:]
            if s.name not in self._decisions and min(s.reach, base.reach) < self._most
        ]
        return [base, *left] if left else []

    def _decide_state(self, state: ModelStateProgress) -> Decision:
        """The adapter against the base, as of the question at which it was decided, if it is."""
        base = self.states[0]
        n = min(base.reach, state.reach, self._most)
        ahead = (
            base.sink is None
        )  # not where it became complete on the way: the decision must not hang on look sizes
        first = self._state_answers(base) if ahead else _first_answers(self._state_answers(base), n)
        return decide_on_answers(
            self._order,
            first,
            _first_answers(self._state_answers(state), n),
            self._alpha,
            self._margin,
            ahead,
        )

    def _is_precise_enough(self, state: ModelStateProgress) -> bool:
        if state.reach >= self._most:
            return True
        wanted = self._config.until_precise
        if wanted is None or not state.reach:
            return False
        low, high = accuracy_interval(self._order, self._state_answers(state))
        self._shown[state.name] = f"accuracy {100 * low:.2f} to {100 * high:.2f} %"
        if self._looked.get(state.name) != state.reach:
            log_note(
                f"{state.name}: {state.reach:,} of {len(self._order):,} questions: {self._shown[state.name]}"
            )
        self._looked[state.name] = state.reach
        return high - low <= 2 * wanted / 100

    def _advance_states(self, states: list[ModelStateProgress], go_on: Any) -> None:
        """Ask the states until ``go_on`` names none."""
        growth = _PRECISE_GROWTH if self._config.until_precise is not None else GROWTH
        more = 0.0  # questions that a turn must bring at least, to be worth its start
        while wanted := [state for state in go_on() if state.sink is not None and state.reach < self._most]:
            reached = min(state.reach for state in wanted)
            looks = [end for end in interim_sample_sizes(self._most, growth) if end > reached]
            if not self._takes_turns:
                self._ask_states(wanted, looks, go_on)
            elif (
                len(wanted) == 1 or wanted[0].adapter is not None
            ):  # the base has its answers: no turns to take
                self._ask_states(wanted[:1], looks, go_on)
            else:
                end = next((end for end in looks if end >= reached + more), self._most)
                before, began = sum(state.asked_now for state in wanted), time.monotonic()
                starts = [self._ask_states([state], [end], lambda: []) for state in wanted]
                asking = max(time.monotonic() - began - sum(starts), 1e-9)
                rate = (sum(state.asked_now for state in wanted) - before) / asking
                # the last start comes again for every state; the first may have been the engine's own
                more = starts[-1] * rate

    def _ask_states(self, states: list[ModelStateProgress], looks: list[int], go_on: Any) -> float:
        """One stream through one engine; returns the seconds until it was open."""
        began = time.monotonic()
        engine: Engine | None = None
        for state in sorted(states, key=lambda state: state.adapter is not None):
            new = state.name not in self._moved
            if new or engine is None:
                engine, moved = self._engines.open_engine_for(state.adapter, state.name, new)
                self._moved.setdefault(state.name, moved)
                if new and state.adapter is None:
                    self._engines.save_probe(self._stores[state.name], engine)
        assert engine is not None  # there are states
        opened = time.monotonic() - began
        before = {state.name: state.asked_now for state in states}
        reached = sum(state.reach for state in states)
        meter = Meter(self._most * len(states) - reached, " and ".join(state.name for state in states))

        def done() -> tuple[int, str]:
            more = "; ".join(self._shown[state.name] for state in states if state.name in self._shown)
            return sum(state.asked_now - before[state.name] for state in states), more

        def shown() -> None:
            meter.update(*done())

        begun = time.monotonic()
        try:
            ask_in_passes(
                engine, self._plan.method, states, looks, self._places, go_on, not self._takes_turns, shown
            )
        finally:
            meter.close(*done())
            seconds = time.monotonic() - begun
            brought = {state.name: state.asked_now - before[state.name] for state in states}
            for name, count in brought.items():  # in proportion: they share the engine's batches
                share = seconds * count / max(1, sum(brought.values()))
                self._seconds[name] = self._seconds.get(name, 0.0) + share
            self._counters = dict(engine.stats())
        return opened

    def _finish_state(self, state: ModelStateProgress) -> Run:
        if state.name in self._finished:
            return self._finished[state.name]
        store, decision = self._stores[state.name], self._decisions.get(state.name)
        if decision is None and state.adapter is not None and self.states[0].adapter is None:
            decision = self._decide_state(state)
        found = early_stop_outcome(state, self._seconds.get(state.name, 0.0), decision)
        found |= {
            "notes": self._plan.notes,
            "engine": self._counters,
            "adapter_shift": self._moved.get(state.name),
        }
        if state.reach == len(self._order):
            described = {
                **environment.describe_environment(),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "engine": self._counters,
            }

            def metrics(frame: pl.DataFrame) -> dict[str, Any]:
                bought = compare_reasoning(frame, seconds=found["full_pass"]["seconds"], direct_seconds=None)
                own = self._engines.extra_metrics(frame, state.adapter)
                return {
                    **summarise_predictions(frame),
                    **own,
                    **found,
                    **({"reasoning": bought} if bought else {}),
                }

            return store.finish(self._plan.question_ids, metrics, described)
        answers = self._state_answers(state)
        prefix = {
            "seed": self._order.seed,
            "total": len(self._order),
            "questions": state.reach,
            "accuracy": list(accuracy_interval(self._order, answers)),
            **found,
        }
        return store.pause(prefix)


def _first_answers(answers: OrderedAnswers, n: int) -> OrderedAnswers:
    return OrderedAnswers(answers.right[:n], answers.margin[:n])
