"""An evaluation that may stop early: base and adapters advance together along one random order until the
question is decided.

In: a plan with its questions in random order, model states, and a session that opens engines and run
directories. Out: one ``Run`` per state, complete or a marked prefix (``Run.prefix``) that a full pass can
continue. The deciding question depends only on the stored answers in order, so a restart gives the same one.

If the base is complete, the order is adaptive: drawn anew where the answers so far say that an adapter may
change an answer. If one engine serves all states, looks stream through it. If the engine must hold an
adapter's weights (swapped or merged), each look is asked of one state after the other, and grows until asking
takes as long as loading the weights.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import polars as pl

from kmmlu_fast.analysis.accuracy import summarise_predictions
from kmmlu_fast.analysis.error_spending import reserve_early_levels
from kmmlu_fast.analysis.reasoning import reasoning_part
from kmmlu_fast.analysis.sequential.adaptive_order import redraw_remaining
from kmmlu_fast.analysis.sequential.betting import ALPHA
from kmmlu_fast.analysis.sequential.question_order import (
    accuracy_interval,
    make_question_order,
)
from kmmlu_fast.analysis.sequential.sampling_weights import list_look_places
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.progress import Meter
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation.early_stopping.decisions import InterimDecisions
from kmmlu_fast.evaluation.early_stopping.passes import (
    GROWTH,
    ModelStateProgress,
    ask_in_passes,
    interim_sample_sizes,
)
from kmmlu_fast.evaluation.early_stopping.record import (
    describe_race,
    early_stop_outcome,
)
from kmmlu_fast.evaluation.early_stopping.shared_order import choose_question_order, order_to_frame
from kmmlu_fast.evaluation.plan import EvalPlan
from kmmlu_fast.evaluation.runner import describe_finish
from kmmlu_fast.runs.metrics import Metrics, PrefixMetrics
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import RunStore, load_run_directory

_PRECISE_GROWTH = 1.2  # of looks: one state's interval narrows slowly, so 1.5x would overshoot


class EngineProvider(Protocol):
    """Opens engines and run directories (``evaluation.model_states``)."""

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
        public = plan.source.has_public_results and self._config.split == "test"
        ids = [question.question_id for question in questions]
        keys = [question.answer for question in questions]
        self._items = {item.question.question_id: item for item in plan.asked}
        self._places = {question_id: place for place, question_id in enumerate(plan.question_ids)}
        self._stores: dict[str, RunStore] = {}
        self._shifts: dict[str, dict[str, Any] | None] = {}
        self._counters: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._finished: dict[str, Run] = {}
        most = min(len(ids), self._config.questions or self._config.max_questions or len(ids))
        uniform = make_question_order(ids, keys, self._config.seed, public)
        self._decisions = InterimDecisions(self._config, uniform, self._finished, most)
        try:
            for adapter in adapters:
                self._open_store(adapter)
            self._choose_order(adapters)
            self._decisions.states = [self._open_state(adapter) for adapter in adapters]
        except BaseException:
            self._close_stores()
            raise
        self._decisions.level = self._error_level()

    def _error_level(self) -> float:
        """The error level of all adapters' comparisons together: on test, what earlier comparisons with this
        base have left.
        """
        base = self._stores.get("base")
        adapters = [(adapter.digest, adapter.name) for adapter in self._plan.adapters]
        if base is None or not self._config.until_decided or self._config.split != "test" or not adapters:
            return ALPHA
        return min(ALPHA, sum(reserve_early_levels(base.path, adapters).values()))

    def run(self) -> list[Run]:
        """Ask until everything is decided, then write the runs."""
        try:
            if self._decisions.order.weights is not None:
                self._advance_adaptively()
            elif self._config.until_decided:
                self._advance_states(self._decisions.states, self._decisions.undecided_states)
            else:
                for state in self._decisions.states:
                    self._advance_states([state], partial(self._decisions.imprecise_states, state))
            if self._decisions.race is not None:
                log_note(describe_race(self._decisions.race))
            return [self._finish_state(state) for state in self._decisions.states]
        finally:
            self._close_stores()

    @property
    def _takes_turns(self) -> bool:
        """Whether the engine must hold some adapter's weights, so that states are asked in turn."""
        return not all(self._engines.serves_adapter(adapter) for adapter in self._plan.adapters)

    def _close_stores(self) -> None:
        for store in self._stores.values():
            store.close()

    def _open_store(self, adapter: Adapter | None) -> None:
        name = _state_name(adapter)
        store = self._engines.open_store(adapter)
        self._stores[name] = store
        if store.complete:
            self._finished[name] = load_run_directory(store.path)
            log_note(f"{name}: finished before, read from {store.path}")

    def _choose_order(self, adapters: Sequence[Adapter | None]) -> None:
        base = self._finished.get("base") if None in adapters else None
        unfinished = {name: store for name, store in self._stores.items() if name not in self._finished}
        frame = None if base is None else base.frame
        self._decisions.order = choose_question_order(self._config, self._decisions.order, unfinished, frame)
        if self._decisions.order.weights is not None:
            log_note("asking first where an adapter is likely to change the base's answer")

    def _open_state(self, adapter: Adapter | None) -> ModelStateProgress:
        name = _state_name(adapter)
        store = self._stores[name]
        state = ModelStateProgress(
            name=name,
            adapter=adapter,
            sink=None if store.complete else store,
            order=[self._items[question_id] for question_id in self._decisions.order.ids],
        )
        if store.complete:
            frame = self._finished[name].frame
        else:
            self._write_order(store)
            frame = store.stored_predictions()
            if len(frame):
                count = f"{len(frame):,} of {len(self._decisions.order):,} questions"
                log_note(f"{name}: continuing {store.path}: {count} were answered before")
        for question_id, right, margin in frame.select("question_id", "correct", "margin").iter_rows():
            state.record_answer(question_id, right, margin)
        return state

    def _write_order(self, store: RunStore) -> None:
        """Store the order before any question is asked along it."""
        keys = {item.question.question_id: item.question.answer for item in self._plan.asked}
        frame = order_to_frame(self._decisions.order, keys)
        seed = self._decisions.order.seed
        start = PrefixMetrics(seed=seed, total=len(frame), questions=0, accuracy=[0.0, 1.0])
        if self._decisions.order.weights is None:
            store.begin_prefix(frame, start)
        else:
            store.write_order(frame, start)

    def _advance_adaptively(self) -> None:
        """Ask until everything is decided; at each redraw place the order of the remaining questions is drawn
        anew. Nothing may be in flight then, so each part is a pass of its own, with looks on the way.
        """
        places = list_look_places(len(self._decisions.order))
        while wanted := [state for state in self._decisions.undecided_states() if state.sink is not None]:
            if self._takes_turns and not self._config.until_best:
                wanted = wanted[:1]
            reached = min(state.reach for state in wanted)
            if reached >= self._decisions.drawn_until:
                self._redraw_order()
                continue
            end = min(self._decisions.drawn_until, self._decisions.most)
            looks = [*(place for place in places if reached < place < end), end]
            behind = [state for state in wanted if state.reach < end]
            for states in [[state] for state in behind] if self._takes_turns else [behind]:
                self._ask_states(states, looks, self._decisions.undecided_states)

    def _redraw_order(self) -> None:
        """Draw the rest anew, by the adapters in play that have answered all before it."""
        place, in_play = self._decisions.drawn_until, self._decisions.states_in_play()
        answers = [self._decisions.state_answers(state, place) for state in in_play if state.reach >= place]
        self._decisions.order = redraw_remaining(
            self._decisions.order, self._decisions.state_answers(self._decisions.states[0]), answers, place
        )
        items = [self._items[question_id] for question_id in self._decisions.order.ids]
        for state in in_play:
            self._write_order(self._stores[state.name])
        for state in self._decisions.states:
            state.follow_order(items)

    def _advance_states(self, states: Sequence[ModelStateProgress], go_on: Any) -> None:
        """Ask the states until ``go_on`` returns none."""
        growth = _PRECISE_GROWTH if self._config.until_precise is not None else GROWTH
        least = 0.0  # questions that a turn must add to be worth starting an engine
        while wanted := [
            state for state in go_on() if state.sink is not None and state.reach < self._decisions.most
        ]:
            reached = min(state.reach for state in wanted)
            looks = [end for end in interim_sample_sizes(self._decisions.most, growth) if end > reached]
            if not self._takes_turns:
                self._ask_states(wanted, looks, go_on)
            elif len(wanted) == 1 or wanted[0].adapter is not None:  # the base is complete: no turns to take
                self._ask_states(wanted[:1], looks, go_on)
            else:
                end = next((end for end in looks if end >= reached + least), self._decisions.most)
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
        meter = Meter(
            self._decisions.most * len(states) - reached, " and ".join(state.name for state in states)
        )

        def progress() -> tuple[int, str]:
            intervals = "; ".join(
                self._decisions.shown[state.name] for state in states if state.name in self._decisions.shown
            )
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
        store, decision = self._stores[state.name], self._decisions.latest.get(state.name)
        outcome = early_stop_outcome(state, self._seconds.get(state.name, 0.0), decision)
        outcome["notes"] = list(self._plan.notes)
        outcome["ahead"] = self._decisions.states[0].sink is None
        if self._decisions.race is not None and state.adapter is not None:
            outcome["race"] = {
                "best": self._decisions.race.best,
                "lost_to": self._decisions.race.lost_to.get(state.name),
            }
        outcome["engine"] = self._counters
        outcome["adapter_shift"] = self._shifts.get(state.name)
        if state.reach == len(self._decisions.order):

            def metrics(frame: pl.DataFrame) -> Metrics:
                return summarise_predictions(frame).add_parts(
                    **self._engines.extra_metrics(frame, state.adapter),
                    **outcome,
                    **reasoning_part(frame, seconds=outcome["full_pass"]["seconds"]),
                )

            return store.finish(self._plan.question_ids, metrics, describe_finish(self._counters))
        answers = self._decisions.state_answers(state)
        prefix = PrefixMetrics(
            seed=self._decisions.order.seed,
            order="uniform" if self._decisions.order.weights is None else "adaptive",
            total=len(self._decisions.order),
            questions=state.reach,
            accuracy=list(accuracy_interval(self._decisions.order, answers)),
            **outcome,
        )
        return store.pause(prefix)


def _state_name(adapter: Adapter | None) -> str:
    return adapter.name if adapter else "base"
