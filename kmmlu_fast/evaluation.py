"""The evaluation: a plan of what is asked, then each model state (base, adapters) over it, in as few engines as possible.

In: an ``EvalConfig``. Out: one complete ``Run`` a model state. This is the wiring of dataset, prompts, engine, scoring and store.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast import dataset, environment, models, proof, runner
from kmmlu_fast.analysis import summarise
from kmmlu_fast.config import EvalConfig
from kmmlu_fast.engine import Engine
from kmmlu_fast.errors import ConfigError
from kmmlu_fast.models import Model
from kmmlu_fast.prompts import letter_tokens, template_digest
from kmmlu_fast.reasoning import comparison
from kmmlu_fast.schema import Adapter, Question
from kmmlu_fast.scoring import DIRECT_MAX_TOKENS, ContinuationChoice, GenerateUntil, Method, MultipleChoice
from kmmlu_fast.store import Run, RunStore, load_run, note, slug
from kmmlu_fast.subjects import find_subjects

EngineOpener = Callable[[list[Adapter], int, str | None], Engine]
_SHORT = {"multiple_choice": "mc", "generate_until": "gen", "cot": "cot"}
_CONTEXT_STEP_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is the same for base and adapters: one token list for all of them."""

    config: EvalConfig
    model: Model
    adapters: list[Adapter]
    style: str
    method: Method
    asked: list[runner.Asked]
    max_model_len: int
    candidate_ids: tuple[int, ...]  # the letters' tokens, for the probes
    parts: dict[str, Any]  # of the fingerprint, without the adapter
    notes: list[str]

    @property
    def probes(self) -> list[list[int]]:
        step = max(1, len(self.asked) // proof.PROBES)
        return [item.lists()[0] for item in self.asked[::step][: proof.PROBES]]


def make_plan(config: EvalConfig) -> Plan:
    """Read, check, render and tokenise everything before any engine starts."""
    subjects = find_subjects(config.subjects)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = dataset.load_questions(config.dataset, config.split, subjects, config.dataset_revision)
    notes = [str(warning.message) for warning in caught if warning.category is UserWarning]
    questions = dataset.select(available, config.limit, config.limit_mode, config.seed)
    if not questions:
        raise ConfigError(
            f"nothing to evaluate: {config.dataset} has no {config.split} questions in {', '.join(config.subjects) or 'any subject'}"
        )
    present = [subject for subject in subjects if subject.name in {question.subject for question in questions}]
    exemplars = dataset.exemplars(config.dataset, present, config.num_fewshot, config.dataset_revision)
    model = models.resolve_model(config.model, config.revision)
    adapters = models.load_adapters(config.adapter, model, config.adapter_mode)
    notes += [warning for adapter in adapters if (warning := models.base_disagrees(adapter, model))]
    tokenizer = models.load_tokenizer(model)
    style = _style(config, adapters, tokenizer)
    method, asked, candidates, more = _ask(config, style, questions, exemplars, tokenizer)
    template = _template(config, style, tokenizer, method)
    notes += more + _foreign_templates(adapters, template_digest(style, tokenizer))
    output_tokens = getattr(method, "output_tokens", None) or (
        config.max_tokens or DIRECT_MAX_TOKENS if config.output_type == "generate_until" else 1
    )
    max_model_len = config.max_model_len or _context(asked, output_tokens, model)
    runner.check_lengths(asked, max_model_len, output_tokens)
    shown = [exemplar for group in exemplars.values() for exemplar in group]
    parts = _fingerprint_parts(config, model, style, template, dataset.digest([*questions, *shown]), method)
    return Plan(config, model, adapters, style, method, asked, max_model_len, candidates, parts, notes)


def _style(config: EvalConfig, adapters: list[Adapter], tokenizer: Any) -> str:
    """The style asked for; else the one the adapters were trained with; else the output type's. ConfigError where adapters disagree."""
    wanted = {adapter.prompt_style for adapter in adapters if adapter.prompt_style}
    if config.prompt_style:
        other = wanted - {config.prompt_style}
        if other:
            raise ConfigError(
                f"--prompt-style {config.prompt_style}: the adapter was trained with {' and '.join(sorted(other))}, another wording would "
                f"measure the wording; leave the flag out, or give --prompt-style {sorted(other)[0]}"
            )
        return config.prompt_style
    if len(wanted) > 1:
        raise ConfigError(
            f"the adapters were trained with different prompt styles ({', '.join(sorted(wanted))}); evaluate them in separate commands"
        )
    if wanted:
        return wanted.pop()
    if config.output_type == "cot":
        from kmmlu_fast.cot import default_style

        return default_style(tokenizer)
    return "lm-eval"


def _foreign_templates(adapters: list[Adapter], template: str) -> list[str]:
    return [
        f"adapter {adapter.name} was trained with another template (digest {adapter.template_digest}, here {template}): the prompts differ"
        for adapter in adapters
        if adapter.template_digest and adapter.template_digest != template
    ]


def _ask(
    config: EvalConfig, style: str, questions: list[Question], exemplars: dict[str, list[Question]], tokenizer: Any
) -> tuple[Method, list[runner.Asked], tuple[int, ...], list[str]]:
    """The method with its letters' tokens checked, the tokenised questions, and notes for the run."""
    from kmmlu_fast.rotations import Rotations

    method: Method
    if config.output_type == "cot":
        from kmmlu_fast.cot import build_method

        method = build_method(
            style, tokenizer, max_tokens=config.max_tokens, num_samples=config.num_samples, temperature=config.temperature,
            top_p=config.top_p, seed=config.seed, below=config.cot_below, thinking=config.thinking,
        )  # fmt: skip
        return method, runner.prepare(questions, exemplars, method, tokenizer)[0], method.force_letter_ids, []
    if config.output_type == "generate_until":
        seed = config.seed if config.temperature > 0 else None
        method = GenerateUntil(style, config.max_tokens or DIRECT_MAX_TOKENS, config.temperature, config.top_p, seed)
        asked, rendered = runner.prepare(questions, exemplars, method, tokenizer)
        letters = letter_tokens(tokenizer, [r[0] for r in rendered], [a.token_ids[0] for a in asked], style)
        return method, asked, letters.ids or _any_candidates(tokenizer), []
    choice: Method = MultipleChoice(style, (0, 1, 2, 3))
    wrap = (lambda inner: Rotations(inner, config.rotations)) if config.rotations > 1 else (lambda inner: inner)
    asked, rendered = runner.prepare(questions, exemplars, wrap(choice), tokenizer)
    letters = letter_tokens(tokenizer, [p for r in rendered for p in r], [ids for a in asked for ids in a.token_ids], style)
    if letters.ids:
        return wrap(MultipleChoice(style, letters.ids)), asked, letters.ids, []
    method = wrap(ContinuationChoice(style))
    asked, _ = runner.prepare(questions, exemplars, method, tokenizer)
    return method, asked, _any_candidates(tokenizer), [f"letters are scored as continuations, four prefills a question: {letters.reason}"]


def _any_candidates(tokenizer: Any) -> tuple[int, ...]:
    """Four token ids to probe with where the letters have none of their own."""
    return tuple(range(min(100, len(tokenizer) - 4), min(104, len(tokenizer))))


def _template(config: EvalConfig, style: str, tokenizer: Any, method: Method) -> str:
    if config.output_type == "cot":
        from kmmlu_fast.cot import wording_digest

        return wording_digest(method, tokenizer)  # type: ignore[arg-type]
    return template_digest(style, tokenizer, thinking=config.thinking)


def _context(asked: list[runner.Asked], output_tokens: int, model: Model) -> int:
    """What the longest prompt needs, rounded up, within what the model has."""
    needed = max(len(ids) for item in asked for ids in item.token_ids) + output_tokens
    rounded = -(-(needed + 32) // _CONTEXT_STEP_TOKENS) * _CONTEXT_STEP_TOKENS
    return min(rounded, model.context_tokens)


def _fingerprint_parts(config: EvalConfig, model: Model, style: str, template: str, rows: str, method: Method) -> dict[str, Any]:
    decoding: dict[str, Any] = {}
    if config.output_type != "multiple_choice":
        decoding = {"max_tokens": getattr(method, "max_tokens", None), "temperature": config.temperature, "top_p": config.top_p}
        decoding |= {"num_samples": config.num_samples, "cot_below": config.cot_below, "thinking": config.thinking}
        decoding |= {"seed": config.seed} if config.temperature > 0 else {}
    if config.rotations > 1:
        decoding["rotations"] = config.rotations
    return {
        "model": model.name,
        "model_digest": model.digest,
        "model_revision": model.revision,
        "dtype": config.dtype,
        "quantization": config.quantization,
        "load_format": config.load_format,
        "dataset_digest": rows,
        "split": config.split,
        "prompt_style": style,
        "template_digest": template,
        "output_type": config.output_type,
        "num_fewshot": config.num_fewshot,
        "decoding": decoding,
        "versions": {name: environment.version_of(name) for name in ("vllm", "transformers")},
    }


def evaluate(config: EvalConfig, open_engine: EngineOpener | None = None) -> list[Run]:
    """Evaluate base and adapters; finished runs are reused, broken ones continued. Runs in order: base, then adapters.

    ``open_engine(adapters, max_model_len, merged_path)`` replaces ``engines.open_engine`` in tests and benchmarks.
    """
    plan = make_plan(config)
    for text in plan.notes:
        note(f"note: {text}")
    if open_engine is None:
        from kmmlu_fast import engines

        def open_engine(adapters: list[Adapter], max_model_len: int, path: str | None) -> Engine:
            note(f"engine: starting {config.engine} for {Path(path or plan.model.path).name}")
            return engines.open_engine(config, plan.model, adapters, max_model_len, path)

    session = _Session(plan, open_engine)
    try:
        states: list[Adapter | None] = [*([] if config.no_base else [None]), *plan.adapters]
        return [session.run(adapter) for adapter in states]
    finally:
        session.close()


class _Session:
    """The engine that is open now, and the base's probe. Merged copies need an engine each; served adapters share the base's."""

    def __init__(self, plan: Plan, open_engine: EngineOpener) -> None:
        self.plan, self._open = plan, open_engine
        self._engine: Engine | None = None
        self._weights: str | None = None  # what the open engine holds: a merged path, or None for the base
        self._base_probe: list[list[float]] | None = None
        self._mode: str | None = None

    @property
    def merge(self) -> bool:
        if self._mode is None:
            self._mode = self.plan.config.adapter_mode
            if self._mode == "auto":
                from kmmlu_fast.engine_vllm import has_gpu

                self._mode = "serve" if self.plan.config.engine == "server" or has_gpu() else "merge"
            if self._mode == "merge" and self.plan.config.engine == "server" and self.plan.adapters:
                raise ConfigError("--adapter-mode merge does not go with --engine server: the server applies the adapters; use serve")
        return self._mode == "merge"

    def run(self, adapter: Adapter | None) -> Run:
        """One model state: reuse, continue or compute."""
        plan, config = self.plan, self.plan.config
        name = adapter.name if adapter else "base"
        about = {"config": config.model_dump(mode="json"), "adapter": _describe(adapter), "max_model_len": plan.max_model_len}
        parts = {**plan.parts, "adapter_digest": adapter.digest if adapter else None}
        store = RunStore(config.output_dir, _run_name(plan, adapter), parts, about, config.overwrite)
        try:
            if store.complete:
                note(f"{name}: finished before, reused from {store.path}")
                return load_run(store.path)
            if store.answered:
                note(f"{name}: continuing {store.path}: {len(store.answered)} of {len(plan.asked)} questions were answered before")
            return self._compute(adapter, name, store)
        finally:
            store.close()

    def _compute(self, adapter: Adapter | None, name: str, store: RunStore) -> Run:
        plan = self.plan
        base_probe = self._probe_base() if adapter else None
        engine = self._engine_for(adapter)
        served = None if self.merge else adapter
        moved = None
        if adapter and base_probe is not None:
            moved = proof.shift(adapter, base_probe, proof.measure(engine, plan.probes, plan.candidate_ids, served))
            note(f"{name}: applied, largest log-probability shift {moved['largest_nats']:.4f} nats on {moved['probes']} probes")
        elif plan.adapters:
            self._base_probe = proof.measure(engine, plan.probes, plan.candidate_ids, None)
        pending = [item for item in plan.asked if item.question.question_id not in store.answered]
        direct_sec = self._time_direct(engine, pending, served)
        before = dict(engine.stats())
        speed = runner.run(engine, pending, plan.method, served, store, name)
        if adapter is None:
            probe = self._base_probe or proof.measure(engine, plan.probes, plan.candidate_ids, None)
            proof.save(store.path, proof.digest(plan.probes, plan.candidate_ids), probe)
        counters = _since(before, engine.stats())

        def metrics(frame: pl.DataFrame) -> dict[str, Any]:
            own = {"notes": plan.notes, "speed": {**speed, "questions_before": len(store.answered)}, "engine": counters}
            sec = speed["seconds"] / max(1, speed["questions"])  # a question, from those answered now
            known = None if not pending else len(frame) * sec
            bought = comparison(frame, seconds=known, direct_seconds=None if direct_sec is None else len(frame) * direct_sec)
            return {**summarise(frame), **own, "adapter_shift": moved, **({"reasoning": bought} if bought else {})}

        order = [item.question.question_id for item in plan.asked]
        return store.finish(
            order, metrics, {**environment.describe(), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "engine": counters}
        )

    def _time_direct(self, engine: Engine, pending: list[runner.Asked], adapter: Adapter | None) -> float | None:
        """Chain of thought: seconds a question without reasoning, to say what reasoning costs."""
        if self.plan.config.output_type != "cot":
            return None
        from kmmlu_fast.cot import ChainOfThought, time_direct

        assert isinstance(self.plan.method, ChainOfThought)
        return time_direct(engine, [(item.question, item.lists()) for item in pending], self.plan.method, adapter)

    def _probe_base(self) -> list[list[float]]:
        """The base's log-probabilities on the probes: from this session, from its finished run, or computed now."""
        plan = self.plan
        if self._base_probe is None:
            parts = {**plan.parts, "adapter_digest": None}
            from kmmlu_fast.store import fingerprint

            folder = plan.config.output_dir / f"{_run_name(plan, None)}-{fingerprint(parts)}"
            self._base_probe = proof.saved(folder, proof.digest(plan.probes, plan.candidate_ids))
        if self._base_probe is None:
            self._base_probe = proof.measure(self._engine_for(None), plan.probes, plan.candidate_ids, None)
        return self._base_probe

    def _engine_for(self, adapter: Adapter | None) -> Engine:
        weights = None
        if adapter and self.merge:
            note(f"{adapter.name}: merging into the base with PEFT (cached)")
            weights = str(models.merge_adapter(self.plan.model, adapter, self.plan.config.dtype))
        if self._engine is None or weights != self._weights:
            self.close()
            served = [] if self.merge or not self.plan.adapters else self.plan.adapters
            self._engine, self._weights = self._open(served, self.plan.max_model_len, weights), weights
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def _since(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Counters of this model state alone; what is not a count is taken as it is."""
    counts = {
        key: after[key] - before.get(key, 0) for key, value in after.items() if isinstance(value, int) and not isinstance(value, bool)
    }
    found = {**after, **counts}
    if counts.get("prompt_tokens") and "cached_tokens" in counts:
        found["prefix_cache_hit_rate"] = round(counts["cached_tokens"] / counts["prompt_tokens"], 4)
    return found


def _describe(adapter: Adapter | None) -> dict[str, Any] | None:
    if adapter is None:
        return None
    return {
        "name": adapter.name,
        "path": str(adapter.path),
        "rank": adapter.rank,
        "digest": adapter.digest,
        "base_model": adapter.base_model,
    }


def _run_name(plan: Plan, adapter: Adapter | None) -> str:
    config = plan.config
    data = "sample" if config.dataset == "sample" else slug(Path(config.dataset).name.lower())
    pieces = [slug(Path(plan.model.name).name), *([slug(adapter.name)] if adapter else ["base"]), data, config.split]
    return "-".join([*pieces, plan.style.replace("-", ""), f"{config.num_fewshot}shot", _SHORT[config.output_type]])
