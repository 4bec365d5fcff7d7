"""The one place of a search that reads test answers: whether the recipe that was chosen is better there.

In: the winner's adapters, chosen on train questions. Out: a ``Confirmation``. Test is asked along the random
order until each adapter's difference is decided, and the look is logged beside the base's run like any other
comparison. One adapter may stop long before another: what is said of it is from all its own answers.
Intervals hold at whatever question it stopped. Nothing is chosen from what comes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.exact_band import ChangeInterval, exact_change_interval
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.recipes import RecipeEffect, recipe_effect
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.exam_source import find_exam_sources
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.improvement.collapse import describe_collapse
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.workers import Workers
from kmmlu_fast.reporting.early_pairs import compare_early_stopped
from kmmlu_fast.runs.run import Run

_SPLIT = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The winner on test, 0-1."""

    questions: int  # that base and all its adapters answered
    base: float  # on these
    # by adapter, on the questions that it answered; the sequential test's intervals, where it has decided
    gains: Mapping[str, ChangeInterval]
    questions_by_adapter: Mapping[str, int]  # that base and adapter answered
    base_by_adapter: Mapping[str, float]  # on these
    verdicts: Mapping[str, str]  # of the sequential test, by adapter; not for a whole split
    effect: RecipeEffect | None  # the recipe's, on ``questions``, over its seeds; None for a single seed
    rival: ChangeInterval | None  # the first adapter minus the base with examples in the prompt
    rival_accuracy: float | None
    rival_examples: int = 0
    examples: int = 0  # that base and adapters were given
    collapsed: Mapping[str, str] = field(default_factory=dict)  # adapters that answer with one letter
    runs: Sequence[str]  # run directories


def choose_rival_examples(config: ImproveConfig) -> int:
    """How many examples the base gets that the winner is compared with: ``fewshot_rival``, or as many as
    every subject has if that is only the default. ConfigError if it was given, before anything is trained.
    """
    wanted = config.fewshot_rival
    if not wanted:
        return 0
    (source,) = find_exam_sources([DEFAULT_EXAM], config.dataset, config.dataset_revision)
    subjects = {question.subject for question in source.read_questions(_SPLIT).value}
    counts = Counter(question.subject for question in source.read_questions("dev").value)
    fewest = min(sorted(subjects), key=lambda name: counts[name])
    most = counts[fewest]
    if most >= wanted:
        return wanted
    has = f"{source.label} has {most} dev question{'' if most == 1 else 's'} of {fewest}"
    if "fewshot_rival" in config.model_fields_set:
        raise ConfigError(f"--fewshot-rival {wanted}: {has}; give at most {most}, or 0 to do without")
    log_note(f"note: {has}: --fewshot-rival is {most}, not {wanted}")
    return most


def confirm_winner(
    config: ImproveConfig,
    protocol: Mapping[str, Any],
    adapters: Mapping[str, Path],
    workers: Workers,
) -> Confirmation:
    """Ask base and adapters (by name) on test until it is decided which is better, and the base with examples
    on the same questions.
    """
    common = {**engine_settings(config), "split": _SPLIT, "output_dir": config.output_dir / "runs"}
    limit = {} if config.max_questions is None else {"max_questions": config.max_questions}
    base, *tuned = workers.evaluate(
        {
            **common,
            **protocol,
            **limit,
            "adapter": [f"{name}={path}" for name, path in adapters.items()],
            "until_decided": True,
            "margin": config.margin,
            # an adaptive one prefers questions whose answer changes: no estimate, and not the rival's order
            "order": "uniform",
        }
    )
    names = list(adapters)
    pairs = {name: _join_answers([base, run]) for name, run in zip(names, tuned, strict=True)}
    rival: Run | None = None
    if config.fewshot_rival and protocol.get("num_fewshot", 0) != config.fewshot_rival:
        count = len(pairs[names[0]])
        settings = {**common, **protocol, "num_fewshot": config.fewshot_rival, "questions": count}
        (rival,) = workers.evaluate(settings)
    gains = {
        name: _sequential_change(_paired_change(pairs[name]["run_0"], pairs[name]["run_1"]), run)
        for name, run in zip(names, tuned, strict=True)
    }
    shared = _join_answers([base, *tuned])
    effect = None
    if len(tuned) > 1:
        first, *others = (_restrict(run, shared.select("question_id")) for run in (base, *tuned))
        effect = _cover_gains(recipe_effect("winner", first, others), list(gains.values()))
    beyond, accuracy = _compare_with_rival(tuned[0], rival)
    return Confirmation(
        questions=len(shared),
        base=_share_right(shared),
        gains=gains,
        questions_by_adapter={name: len(pair) for name, pair in pairs.items()},
        base_by_adapter={name: _share_right(pair) for name, pair in pairs.items()},
        verdicts=_sequential_verdicts(names, tuned),
        effect=effect,
        rival=beyond,
        rival_accuracy=accuracy,
        rival_examples=config.fewshot_rival if rival else 0,
        examples=int(protocol.get("num_fewshot", 0)),
        collapsed={
            name: said
            for name, run in zip(names, tuned, strict=True)
            if (said := describe_collapse(base.frame, run.frame)) is not None
        },
        runs=[str(run.path) for run in (base, *tuned, *([rival] if rival else []))],
    )


def engine_settings(config: ImproveConfig) -> dict[str, Any]:
    """What a search passes on to ``eval``: model, data, and every option of the engine that was given."""
    passed = {*EngineOptions.model_fields, "dataset", "dataset_revision"}
    given = {name: getattr(config, name) for name in sorted(passed & config.model_fields_set)}
    return {"model": config.model, "dataset": config.dataset, "seed": config.seed, **given}


def _join_answers(runs: Sequence[Run]) -> pl.DataFrame:
    """question_id, and run_0, run_1, ... (right or wrong) on the questions that all of them answered."""
    joined = runs[0].frame.select("question_id", pl.col("correct").alias("run_0"))
    for place, run in enumerate(runs[1:], 1):
        other = run.frame.select("question_id", pl.col("correct").alias(f"run_{place}"))
        joined = joined.join(other, on="question_id", how="inner", maintain_order="left")
    return joined


def _share_right(joined: pl.DataFrame) -> float:
    """The first run's accuracy."""
    return float(joined["run_0"].mean())  # type: ignore[arg-type]


def _paired_change(before: pl.Series, after: pl.Series) -> ChangeInterval:
    return exact_change_interval(int((after & ~before).sum()), int((before & ~after).sum()), len(before))


def _restrict(run: Run, ids: pl.DataFrame) -> Run:
    frame = ids.join(run.frame, on="question_id", how="inner", maintain_order="left")
    return replace(run, predictions=frame)


def _sequential_change(change: ChangeInterval, run: Run) -> ChangeInterval:
    """``change`` with the interval of the test that chose when to stop."""
    decision = run.pass_metrics.decision
    if not decision or "low" not in decision:
        return change
    return replace(change, low=float(decision["low"]), high=float(decision["high"]))


def _cover_gains(effect: RecipeEffect, gains: Sequence[ChangeInterval]) -> RecipeEffect:
    """``effect`` with intervals no narrower than that of the mean of its adapters, which holds where asking
    stopped."""
    low, high = (sum(getattr(gain, end) for gain in gains) / len(gains) for end in ("low", "high"))
    return replace(
        effect,
        low=min(effect.low, low),
        high=max(effect.high, high),
        inner_low=min(effect.inner_low, low),
        inner_high=max(effect.inner_high, high),
    )


def _compare_with_rival(tuned: Run, rival: Run | None) -> tuple[ChangeInterval | None, float | None]:
    """How many questions there are was decided with this adapter's answers: unless both answered all of them,
    by the sequential test."""
    if rival is None:
        return None, None
    joined = _join_answers([rival, tuned])
    change = _paired_change(joined["run_0"], joined["run_1"])
    if tuned.prefix is not None or rival.prefix is not None:
        settings = ComparisonSettings(different_prompts=True)
        (pair,) = compare_early_stopped([rival, tuned], settings)
        change = replace(change, low=pair.decision.low, high=pair.decision.high)
    return change, _share_right(joined)


def _sequential_verdicts(names: Sequence[str], runs: Sequence[Run]) -> dict[str, str]:
    """What the sequential test decided, by adapter."""
    verdicts = {}
    for name, run in zip(names, runs, strict=True):
        decision = run.pass_metrics.decision
        if decision and decision.get("verdict"):
            verdicts[name] = str(decision["verdict"])
    return verdicts
