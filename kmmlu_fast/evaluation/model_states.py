"""The stages of an evaluation: make a plan, then ask each model state (base, adapters) with few engines.

In: an ``EvalConfig``. Out: one complete ``Run`` per model state. Wires dataset, prompts, engine, scoring and
store together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.accuracy import summarise_predictions
from kmmlu_fast.analysis.reasoning import reasoning_part
from kmmlu_fast.analysis.written_forms import summarise_letter_forms
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.counters import stats_between
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation import adapter_probe, reuse, runner
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.open_engines import (
    EngineManager,
    EngineOpener,
    choose_leading_plan,
    make_engine_opener,
)
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plans
from kmmlu_fast.evaluation.run_names import run_directory_name
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.models.changes import check_adapter_unchanged
from kmmlu_fast.prompting.unfinished_thoughts import describe_unfinished_thoughts
from kmmlu_fast.runs.layout import is_complete_run
from kmmlu_fast.runs.metrics import Metrics
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import RunStore, load_run_directory


def evaluate_model_states(config: EvalConfig, open_engine: EngineOpener | None) -> list[Run]:
    """Base and adapters of a config that names its base, by exam, the base first; ``reuse`` records them."""
    if open_engine is None:
        modules = find_engine_kind(config.engine).requires(config)
        require_modules(f"evaluation (--engine {config.engine})", "transformers", *modules)
    with report_wait("reading questions and tokenizer"):
        plans = make_eval_plans(config)
    notes = list(dict.fromkeys(text for plan in plans for text in plan.notes))
    for text in notes:
        log_note(f"note: {text}")
    leading = choose_leading_plan(plans)
    if open_engine is None:
        open_engine = make_engine_opener(leading)
    engine = EngineManager(leading, open_engine)
    sessions = [_ExamSession(plan, engine, len(config.exam) > 1) for plan in plans]
    try:
        states: list[Adapter | None] = [*([] if config.no_base else [None]), *leading.adapters]
        if config.may_stop:
            if config.order == "adaptive":  # it is drawn from the base's margins on all questions
                for session in sessions:
                    session.run_state(None)
            return _run_early_stopping(sessions, states)
        runs = _run_states(sessions, states)
        reuse.record_finished_runs(config, runs, notes)
        return runs
    finally:
        for plan in plans:
            plan.close()
        engine.close()


def _run_states(sessions: list[_ExamSession], states: list[Adapter | None]) -> list[Run]:
    runs: list[list[Run]] = [[] for _ in sessions]
    for adapter in states:
        # Every exam probes the base before a merged adapter needs another engine.
        for session in sessions if adapter else []:
            session.prepare_base_probe(adapter)
        for exam_runs, session in zip(runs, sessions, strict=True):
            exam_runs.append(session.run_state(adapter))
    return [run for exam_runs in runs for run in exam_runs]


def _run_early_stopping(sessions: list[_ExamSession], states: list[Adapter | None]) -> list[Run]:
    """One exam after the other: each has its own random order and its own decision."""
    # Here: twenty modules that a full pass, and a finished run shown again, do without.
    from kmmlu_fast.evaluation.early_stopping.evaluation import EarlyStoppingEvaluation

    runs = []
    for session in sessions:
        if len(sessions) > 1:
            log_note(f"{session.plan.source.exam.label}: {len(session.plan.asked):,} questions")
        runs += EarlyStoppingEvaluation(session.plan, session, states).run()
    return runs


class _ExamSession:
    """One exam's model states, and the base's probe on it."""

    def __init__(self, plan: EvalPlan, engines: EngineManager, one_of_several: bool = False) -> None:
        self.plan, self._engines, self._one_of_several = plan, engines, one_of_several
        self._base_probe: list[list[float]] | None = None
        self._finished_now: set[str | None] = set()  # adapters' names; None: the base

    def prepare_base_probe(self, adapter: Adapter | None) -> None:
        """Measure the base's probe if the adapter's run is still to be computed."""
        if self.plan.config.overwrite or not is_complete_run(self._run_folder(adapter)):
            self._ensure_base_probe()

    def _run_folder(self, adapter: Adapter | None) -> Path:
        fingerprint = compute_fingerprint(self._parts(adapter))
        name = run_directory_name(self.plan, adapter, fingerprint)
        return self.plan.config.output_dir / f"{name}-{fingerprint}"

    def _parts(self, adapter: Adapter | None) -> dict[str, Any]:
        return {**self.plan.parts, "adapter_digest": adapter.digest if adapter else None}

    def run_state(self, adapter: Adapter | None) -> Run:
        """Reuse, continue or compute the run of one model state."""
        plan = self.plan
        name = adapter.name if adapter else "base"
        if plan.config.protocol:
            name = f"{plan.config.protocol}: {name}"
        if self._one_of_several:
            name = f"{plan.source.exam.name} {name}"
        store = self.open_store(adapter)
        try:
            if store.complete:
                log_note(f"{name}: finished before, reused from {store.path}")
                return load_run_directory(store.path)
            if store.answered:
                log_note(
                    f"{name}: continuing {store.path}: {len(store.answered)} of {len(plan.asked)} questions"
                    " were answered before"
                )
            with report_wait(f"{name}: answering"):
                run = self._compute_run(adapter, name, store)
            self._finished_now.add(adapter.name if adapter else None)
            return run
        finally:
            store.close()

    def open_store(self, adapter: Adapter | None) -> RunStore:
        """The run directory of a model state, new or to be continued."""
        plan, config = self.plan, self.plan.config
        exam = plan.source.exam.to_metadata()
        if plan.source.dataset:
            exam["dataset"] = plan.source.dataset
        metadata = {
            "config": config.model_dump(mode="json"),
            "adapter": _adapter_facts(adapter),
            "max_model_len": plan.max_model_len,
            "exam": exam,
        }
        name = run_directory_name(plan, adapter, compute_fingerprint(self._parts(adapter)))
        # what this session has finished is not replaced again
        overwrite = config.overwrite and (adapter.name if adapter else None) not in self._finished_now
        return RunStore(config.output_dir, name, self._parts(adapter), metadata, overwrite)

    def serves_adapter(self, adapter: Adapter) -> bool:
        """Whether the base's engine applies the adapter per request; else it must hold the weights."""
        return self._engines.mode_of(adapter) == "serve"

    def open_engine_for(
        self, adapter: Adapter | None, name: str, prove: bool = True
    ) -> tuple[Engine, dict[str, Any] | None]:
        """The engine that answers as a model state, and how far the adapter moves the probes.

        AdapterError if the adapter does not move them. With ``prove`` False the shift is not measured (None).
        """
        if not prove:
            return self._engines.engine_for(adapter), None
        base_probe = self._ensure_base_probe() if adapter else None
        engine = self._engines.engine_for(adapter)
        shift = None
        if adapter and base_probe is not None:
            served = adapter if self.serves_adapter(adapter) else None
            shift = adapter_probe.measure_adapter_shift(adapter, base_probe, self._probe(engine, served))
            check_adapter_unchanged(adapter)  # a served one was read for the first of these requests
            log_note(
                f"{name}: applied, largest log-probability shift {shift['largest_nats']:.4f} nats on"
                f" {shift['probes']} probes"
            )
        elif self.plan.adapters and self._base_probe is None:
            self._base_probe = self._probe(engine)
        return engine, shift

    def save_probe(self, store: RunStore, engine: Engine) -> None:
        """Save the base's probe with its run, so that a reused base need not be started again."""
        adapter_probe.save_base_probe(store.path, self._probe_key(), self._base_probe or self._probe(engine))

    def _probe(self, engine: Engine, served: Adapter | None = None) -> list[list[float]]:
        return adapter_probe.measure_probe_logprobs(engine, self.plan.probes, self.plan.candidate_ids, served)

    def _probe_key(self) -> str:
        return adapter_probe.probe_digest(self.plan.probes, self.plan.candidate_ids)

    def _compute_run(self, adapter: Adapter | None, name: str, store: RunStore) -> Run:
        plan = self.plan
        engine, shift = self.open_engine_for(adapter, name)
        served = adapter if adapter and self.serves_adapter(adapter) else None
        pending = [item for item in plan.asked if item.question.question_id not in store.answered]
        direct_sec = runner.time_direct_answers(engine, pending, plan.method, served)
        before = dict(engine.stats())
        speed = runner.ask_questions(engine, pending, plan.method, served, store, name)
        if adapter is None:
            self.save_probe(store, engine)
        counters = stats_between(before, engine.stats())

        def metrics(frame: pl.DataFrame) -> Metrics:
            unfinished = describe_unfinished_thoughts(plan.method, frame)
            for note in unfinished:
                log_note(f"{name}: {note}")
            # For all questions, at the rate of those answered in this pass.
            seconds = len(frame) * speed["seconds"] / max(1, speed["questions"]) if pending else None
            direct_seconds = None if direct_sec is None else len(frame) * direct_sec
            return summarise_predictions(frame).add_parts(
                notes=[*plan.notes, *unfinished],
                speed={**speed, "questions_before": len(store.answered)},
                engine=counters,
                adapter_shift=shift,
                **self.extra_metrics(frame, adapter),
                **reasoning_part(frame, seconds=seconds, direct_seconds=direct_seconds),
            )

        order = [item.question.question_id for item in plan.asked]
        return store.finish(order, metrics, runner.describe_finish(counters))

    def extra_metrics(self, frame: pl.DataFrame, adapter: Adapter | None) -> dict[str, Any]:
        """Metrics of a complete run that its answers alone do not give."""
        metrics: dict[str, Any] = {"exact_ties": count_exact_ties(frame)}
        if (forms := summarise_letter_forms(frame)) is not None:
            metrics["letter_forms"] = forms.to_dict()
        if adapter:
            metrics["adapter_mode"] = self._engines.mode_of(adapter)
        return metrics

    def _ensure_base_probe(self) -> list[list[float]]:
        """The base's log-probabilities on the probes: of this session, of its run, or computed now."""
        shape = (len(self.plan.probes), len(self.plan.candidate_ids))
        if self._base_probe is None:
            self._base_probe = adapter_probe.load_base_probe(self._run_folder(None), self._probe_key(), shape)
        if self._base_probe is None:
            self._base_probe = self._probe(self._engines.engine_for(None))
        return self._base_probe


def count_exact_ties(frame: pl.DataFrame) -> int:
    """Questions whose two best letters have the same log-probability; the earlier letter was taken.

    A bfloat16 logit of 20 is a multiple of 0.125; --letter-precision float32 leaves hardly any ties.
    """
    return int((frame["margin"] == 0).sum())


def _adapter_facts(adapter: Adapter | None) -> dict[str, Any] | None:
    if adapter is None:
        return None
    return {
        "name": adapter.name,
        "path": str(adapter.path),
        "rank": adapter.rank,
        "digest": adapter.digest,
        "base_model": adapter.base_model,
    }
