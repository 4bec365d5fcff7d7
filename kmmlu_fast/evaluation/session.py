"""The evaluation: a plan of what is asked, then each model state (base, adapters) over it, in as few engines
as possible.

In: an ``EvalConfig``. Out: one complete ``Run`` a model state. This is the wiring of dataset, prompts,
engine, scoring and store.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.accuracy import summarise_predictions
from kmmlu_fast.analysis.reasoning import compare_reasoning
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.files import make_slug
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.counters import stats_between
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation import adapter_probe, reuse, runner
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.early_stopping.evaluation import EarlyStoppingEvaluation
from kmmlu_fast.evaluation.open_engines import EngineManager, EngineOpener
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plans
from kmmlu_fast.machine import environment
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.runs.layout import is_complete_run
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import RunStore, load_run_directory

_SHORT = {"multiple_choice": "mc", "generate_until": "gen", "cot": "cot"}


def run_evaluation(config: EvalConfig, open_engine: EngineOpener | None = None) -> list[Run]:
    """Evaluate base and adapters; finished runs are reused, broken ones continued. Runs in order: exam by
    exam, base, then adapters.

    ``open_engine(adapters, max_model_len, merged_path)`` replaces ``engines.open_engine`` in tests and
    benchmarks.
    """
    if (shown := reuse.reusable_runs(config)) is not None:
        return shown
    needed = {"vllm": ("vllm", "torch"), "ray": ("ray", "vllm", "torch"), "server": ("httpx", "tenacity")}
    needed["transformers"] = ("torch", "accelerate", *(["bitsandbytes"] if config.quantization else []))
    if open_engine is None:
        require_modules(
            f"evaluation (--engine {config.engine})", "transformers", *needed.get(config.engine, ())
        )
    with report_wait("reading questions and tokenizer"):
        plans = make_eval_plans(config)
    for text in dict.fromkeys(text for plan in plans for text in plan.notes):
        log_note(f"note: {text}")
    first = plans[0]
    if open_engine is None:
        from kmmlu_fast.engines import factory as engines

        def open_engine(adapters: list[Adapter], max_model_len: int, path: str | None) -> Engine:
            log_note(f"engine: starting {config.engine} for {Path(path or first.model.path).name}")
            return engines.open_engine(first.config, first.model, adapters, max_model_len, path)

    engine = EngineManager(first, open_engine)
    sessions = [_ExamSession(plan, engine, len(plans) > 1) for plan in plans]
    try:
        states: list[Adapter | None] = [*([] if config.no_base else [None]), *first.adapters]
        if config.may_stop:
            return _run_early_stopping(sessions, states)
        found: list[list[Run]] = [[] for _ in sessions]
        for adapter in states:
            for session in sessions if adapter else []:
                session.prepare_base_probe(
                    adapter
                )  # every exam needs the base first: merged weights are another engine
            for runs, session in zip(found, sessions, strict=True):
                runs.append(session.run_state(adapter))
        done = [run for runs in found for run in runs]
        reuse.record_finished_runs(
            config, done, list(dict.fromkeys(text for plan in plans for text in plan.notes))
        )
        return done
    finally:
        for plan in plans:
            plan.close()
        engine.close()


def _run_early_stopping(sessions: list[_ExamSession], states: list[Adapter | None]) -> list[Run]:
    """One exam after the other: each has its own random order and its own decision."""
    found = []
    for session in sessions:
        if len(sessions) > 1:
            log_note(f"{session.plan.exam.label}: {len(session.plan.asked):,} questions")
        found += EarlyStoppingEvaluation(session.plan, session, states).run()
    return found


class _ExamSession:
    """One exam's model states, and the base's probe on it."""

    def __init__(self, plan: EvalPlan, engines: EngineManager, one_of_several: bool = False) -> None:
        self.plan, self._engines, self._one_of_several = plan, engines, one_of_several
        self._base_probe: list[list[float]] | None = None

    def prepare_base_probe(self, adapter: Adapter | None) -> None:
        """The base's probe, where the adapter's run is still to be computed."""
        if self.plan.config.overwrite or not is_complete_run(self._run_folder(adapter)):
            self._ensure_base_probe()

    def _run_folder(self, adapter: Adapter | None) -> Path:
        parts = {**self.plan.parts, "adapter_digest": adapter.digest if adapter else None}
        return self.plan.config.output_dir / f"{run_name(self.plan, adapter)}-{compute_fingerprint(parts)}"

    def run_state(self, adapter: Adapter | None) -> Run:
        """One model state: reuse, continue or compute."""
        plan = self.plan
        name = adapter.name if adapter else "base"
        name = f"{plan.exam.name} {name}" if self._one_of_several else name
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
                return self._compute_run(adapter, name, store)
        finally:
            store.close()

    def open_store(self, adapter: Adapter | None) -> RunStore:
        """The run directory of a model state, opened or continued."""
        plan, config = self.plan, self.plan.config
        about = {
            "config": config.model_dump(mode="json"),
            "adapter": _adapter_facts(adapter),
            "max_model_len": plan.max_model_len,
        }
        about |= {"exam": {**plan.exam.to_metadata(), **({"dataset": plan.source} if plan.source else {})}}
        parts = {**plan.parts, "adapter_digest": adapter.digest if adapter else None}
        return RunStore(config.output_dir, run_name(plan, adapter), parts, about, config.overwrite)

    def serves_adapter(self, adapter: Adapter) -> bool:
        """Whether the base's engine applies the adapter request by request; else its weights
        must be in the engine.
        """
        return self._engines.mode_of(adapter) == "serve"

    def open_engine_for(
        self, adapter: Adapter | None, name: str, prove: bool = True
    ) -> tuple[Engine, dict[str, Any] | None]:
        """The engine that holds a model state, and how far the adapter moves the probes; AdapterError where
        it does not.

        ``prove`` False: it was measured before, and is not again (None).
        """
        plan = self.plan
        if not prove:
            return self._engines.engine_for(adapter), None
        base_probe = self._ensure_base_probe() if adapter else None
        engine = self._engines.engine_for(adapter)
        moved = None
        if adapter and base_probe is not None:
            served = adapter if self.serves_adapter(adapter) else None
            moved = adapter_probe.measure_adapter_shift(
                adapter,
                base_probe,
                adapter_probe.measure_probe_logprobs(engine, plan.probes, plan.candidate_ids, served),
            )
            log_note(
                f"{name}: applied, largest log-probability shift {moved['largest_nats']:.4f} nats on"
                f" {moved['probes']} probes"
            )
        elif plan.adapters and self._base_probe is None:
            self._base_probe = adapter_probe.measure_probe_logprobs(
                engine, plan.probes, plan.candidate_ids, None
            )
        return engine, moved

    def save_probe(self, store: RunStore, engine: Engine) -> None:
        """Leave the base's probe with its run, so that a reused base need not be started again."""
        plan = self.plan
        probe = self._base_probe or adapter_probe.measure_probe_logprobs(
            engine, plan.probes, plan.candidate_ids, None
        )
        adapter_probe.save_base_probe(
            store.path, adapter_probe.probe_digest(plan.probes, plan.candidate_ids), probe
        )

    def _compute_run(self, adapter: Adapter | None, name: str, store: RunStore) -> Run:
        plan = self.plan
        engine, moved = self.open_engine_for(adapter, name)
        served = adapter if adapter and self.serves_adapter(adapter) else None
        pending = [item for item in plan.asked if item.question.question_id not in store.answered]
        direct_sec = runner.time_direct_answers(engine, pending, plan.method, served)
        before = dict(engine.stats())
        speed = runner.ask_questions(engine, pending, plan.method, served, store, name)
        if adapter is None:
            self.save_probe(store, engine)
        counters = stats_between(before, engine.stats())

        def metrics(frame: pl.DataFrame) -> dict[str, Any]:
            own: dict[str, Any] = {
                "notes": plan.notes,
                "speed": {**speed, "questions_before": len(store.answered)},
                "engine": counters,
            }
            own |= self.extra_metrics(frame, adapter)
            sec = speed["seconds"] / max(1, speed["questions"])  # a question, from those answered now
            known = None if not pending else len(frame) * sec
            bought = compare_reasoning(
                frame, seconds=known, direct_seconds=None if direct_sec is None else len(frame) * direct_sec
            )
            return {
                **summarise_predictions(frame),
                **own,
                "adapter_shift": moved,
                **({"reasoning": bought} if bought else {}),
            }

        order = [item.question.question_id for item in plan.asked]
        return store.finish(
            order,
            metrics,
            {
                **environment.describe_environment(),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "engine": counters,
            },
        )

    def extra_metrics(self, frame: pl.DataFrame, adapter: Adapter | None) -> dict[str, Any]:
        """What this evaluation knows of a complete run beside its answers."""
        return {
            "exact_ties": count_exact_ties(frame),
            **({"adapter_mode": self._engines.mode_of(adapter)} if adapter else {}),
        }

    def _ensure_base_probe(self) -> list[list[float]]:
        """The base's log-probabilities on the probes: from this session, from its finished run,
        or computed now.
        """
        plan = self.plan
        if self._base_probe is None:
            self._base_probe = adapter_probe.load_base_probe(
                self._run_folder(None), adapter_probe.probe_digest(plan.probes, plan.candidate_ids)
            )
        if self._base_probe is None:
            self._base_probe = adapter_probe.measure_probe_logprobs(
                self._engines.engine_for(None), plan.probes, plan.candidate_ids, None
            )
        return self._base_probe


def count_exact_ties(frame: pl.DataFrame) -> int:
    """Questions whose two best letters have the same log-probability: the earlier letter was taken, whatever
    the model meant.

    A bfloat16 logit of 20 is a multiple of 0.125: --letter-precision float32 leaves hardly any tie.
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


def run_name(plan: EvalPlan, adapter: Adapter | None) -> str:
    """The readable part of a run directory's name."""
    config = plan.config
    data = plan.exam.name
    if plan.exam.is_kmmlu:
        data = "sample" if plan.source == "sample" else make_slug(Path(plan.source or data).name.lower())
    pieces = [
        make_slug(Path(plan.model.name).name),
        *([make_slug(adapter.name)] if adapter else ["base"]),
        data,
        config.split,
    ]
    return "-".join(
        [*pieces, plan.style.replace("-", ""), f"{config.num_fewshot}shot", _SHORT[config.output_type]]
    )
