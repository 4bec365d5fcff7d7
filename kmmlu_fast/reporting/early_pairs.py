"""Comparisons of runs that stopped early: by the sequential test, logged, with the same cautions as others.

In: runs of one exam, at least one of them a prefix (``Run.prefix``); settings. Out: ``EarlyComparison``s. A
prefix is compared with a prefix or a complete run. The one side effect is ``peeks.json`` beside the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from kmmlu_fast.analysis.error_spending import make_ledgers, next_level
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.overlap_gap import estimate_overlap_gap
from kmmlu_fast.analysis.protocol_differences import (
    is_protocol_unknown,
    prompt_differences,
    setting_differences,
)
from kmmlu_fast.analysis.sequential.adaptive_order import read_shared_order
from kmmlu_fast.analysis.sequential.betting import ALPHA, Decision
from kmmlu_fast.analysis.sequential.question_order import (
    QuestionOrder,
    compare_prefixes,
    restrict_question_order,
)
from kmmlu_fast.analysis.sequential.several import decide_by_holm
from kmmlu_fast.analysis.strata import IntervalEstimate
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.comparison_log import is_test_split_comparison, log_comparisons, new_comparison
from kmmlu_fast.runs.layout import read_question_order
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyComparison:
    """Second against first; at least one of them stopped early."""

    first: str
    second: str
    decision: Decision
    clean: Decision | None = None  # on the questions that do not overlap training data
    overlapping: int = 0  # of the questions that both answered
    overlap_gap: IntervalEstimate | None = None  # change on those minus change on the others
    prompt_differences: tuple[str, ...] = ()
    setting_differences: tuple[str, ...] = ()
    protocol_unknown: tuple[str, ...] = ()
    overlap_known: bool = True
    tried: int = 1  # logged comparisons with this base, this one included


def compare_early_stopped(runs: Sequence[Run], settings: ComparisonSettings) -> list[EarlyComparison]:
    """Every run against the first, on the questions that both have from the start of their order; together
    with all logged comparisons with that base at 5 %.

    RunError if orders, questions, keys or prompts differ.
    """
    base, others = runs[0], runs[1:]
    prompts = [_prompt_differences(base, run, settings) for run in others]
    entries = {
        run.name: new_comparison(run, questions=0, p_value=None, difference=0.0, kind="early")
        for run in others
        if is_test_split_comparison(base, run)
    }
    log = log_comparisons(base.path, list(entries.values()), next_level)
    ledgers = make_ledgers(log, entries)
    level = ALPHA
    if len(ledgers) == len(others):
        level = min(ALPHA, sum(ledger.level for ledger in ledgers.values()))
    by_name = {run.name: run for run in others}
    orders = {run.name: _order_of_pair(base, run, runs) for run in others}
    decisions = decide_by_holm(
        list(by_name),
        lambda name, *levels: _decide_early(orders[name], base, by_name[name], levels, settings),
        level,
    )
    pairs = []
    for run, differing in zip(others, prompts, strict=True):
        unknown = [each.name for each in (base, run) if is_protocol_unknown(each)]
        pair = EarlyComparison(
            first=base.name,
            second=run.name,
            decision=decisions[run.name],
            setting_differences=tuple(setting_differences(base, run)),
            overlap_known=settings.overlap_known,
            prompt_differences=tuple(differing),
            protocol_unknown=tuple(unknown),
            tried=ledgers[run.name].comparisons if run.name in ledgers else 1,
        )
        pairs.append(_with_overlap(pair, orders[run.name], base, run, settings))
    _log_outcomes(base, others, pairs)
    return pairs


def _prompt_differences(base: Run, run: Run, settings: ComparisonSettings) -> list[str]:
    differing = prompt_differences(base, run)
    if base.facts.get("dataset_digest") != run.facts.get("dataset_digest"):
        differing = [*differing, "dataset_digest"]
    if differing and not settings.different_prompts:
        raise RunError(
            f"{base.name} and {run.name} were asked differently ({'; '.join(differing)}), so a"
            " difference would not be due to the model alone; evaluate both alike, or give"
            " --different-prompts"
        )
    return differing


def _order_of_pair(base: Run, run: Run, runs: Sequence[Run]) -> QuestionOrder:
    """Each adapter may have an adaptive order of its own."""
    early = any(each.prefix is not None for each in (base, run))
    return shared_question_order([base, run] if early else runs)


def _decide_early(
    order: QuestionOrder, base: Run, run: Run, levels: tuple[float, ...], settings: ComparisonSettings
) -> Decision:
    recorded = run.pass_metrics.ahead
    ahead = recorded if isinstance(recorded, bool) else None
    alpha, *equal = levels
    return compare_prefixes(
        order,
        base.frame,
        run.frame,
        alpha,
        settings.margin,
        ahead,
        settings.population,
        equal[0] if equal else None,
    )


def _with_overlap(
    pair: EarlyComparison, order: QuestionOrder, base: Run, run: Run, settings: ComparisonSettings
) -> EarlyComparison:
    """With a second test on the questions that do not overlap training data, and how much larger the change
    is on those that do.
    """
    decision = pair.decision
    both = set(base.frame["question_id"]) & set(run.frame["question_id"])
    marked = frozenset(both & settings.overlap)
    if not marked or len(marked) == len(both):
        return pair
    rest = restrict_question_order(order, settings.overlap)
    return replace(
        pair,
        overlapping=len(marked),
        clean=_decide_early(rest, base, run, (decision.alpha,), settings),
        overlap_gap=_overlap_gap(marked, base, run),
    )


def _overlap_gap(marked: frozenset[str], base: Run, run: Run) -> IntervalEstimate | None:
    asked = base.frame.select("question_id", "subject", "answer", pl.col("correct").alias("first"))
    joined = asked.join(run.frame.select("question_id", "correct"), on="question_id")
    change = joined["correct"].to_numpy().astype(float) - joined["first"].to_numpy().astype(float)
    strata, key = (
        joined[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("subject", "answer")
    )
    return estimate_overlap_gap(change, strata, key, joined["question_id"].is_in(marked).to_numpy())


def _log_outcomes(base: Run, others: Sequence[Run], pairs: Sequence[EarlyComparison]) -> None:
    entries = [
        new_comparison(
            run,
            questions=pair.decision.answers,
            p_value=pair.decision.p_value,
            difference=(pair.decision.low + pair.decision.high) / 2,
            kind="early",
        )
        for run, pair in zip(others, pairs, strict=True)
        if is_test_split_comparison(base, run)
    ]
    log_comparisons(base.path, entries, next_level)


def shared_question_order(runs: Sequence[Run]) -> QuestionOrder:
    """The random order that the early-stopped runs share; RunError if they have different ones."""
    early = [run for run in runs if run.prefix is not None and run.path is not None]
    stored = [(run.name, read_question_order(run.path)) for run in early if run.path is not None]
    prefix = early[0].prefix
    asked = early[0].config.get("config") or {}
    source = (early[0].config.get("exam") or {}).get("dataset", asked.get("dataset"))
    public = early[0].exam == "kmmlu" and source != "sample" and asked.get("split") == "test"
    return read_shared_order(stored, prefix.seed if prefix else 0, public)
