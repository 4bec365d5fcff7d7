"""The comparisons of a report: every run against the base, comparisons on test logged, p corrected for all of
them.

In: loaded runs, the base first; settings. Out: comparisons, refusals, recipes, rows of exams. The one side
effect is ``peeks.json`` beside each base that adapters were compared with on test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from kmmlu_fast.analysis.base_comparisons import AnyPair, adjust_pair_p_values, compare_with_base
from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.error_spending import Ledger, corrected_p_values, make_ledgers, next_level
from kmmlu_fast.analysis.exam_comparison import ExamRow, adjust_exam_p_values, exam_rows, group_runs_by_exam
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings, HeadlineComparison
from kmmlu_fast.analysis.recipes import RecipeEffect, recipe_effect
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.comparison_log import is_test_split_comparison, log_comparisons, new_comparison
from kmmlu_fast.runs.run import Run

Refused = tuple[str, str]  # name of the run that was not compared, why


def compare_all_with_base(
    runs: list[Run], settings: ComparisonSettings
) -> tuple[list[PairComparison], list[Refused]]:
    """``compare_with_base``, corrected also for logged comparisons of other adapters. Prompts may differ."""
    pairs, refused = compare_with_base(runs, settings)
    return log_and_correct_pairs(runs, pairs), refused


def compare_all_strictly(
    runs: list[Run], settings: ComparisonSettings
) -> tuple[list[PairComparison], list[Refused]]:
    """The same, but prompts may differ only if the settings allow it; RunError if the only pair, both with
    answers, cannot be compared.
    """
    pairs: list[PairComparison] = []
    refused: list[Refused] = []
    for other in runs[1:]:
        try:
            pairs.append(compare_pair(runs[0], other, settings))
        except RunError as error:
            if len(runs) == 2 and not (runs[0].predictions is None or other.predictions is None):
                raise
            refused.append((other.name, str(error)))
    return log_and_correct_pairs(runs, pairs), refused


def log_and_correct_pairs(runs: list[Run], pairs: list[AnyPair]) -> list[AnyPair]:
    """Log the pairs; returns them corrected for each other and for all logged comparisons with this base."""
    return adjust_pair_p_values(pairs, _log_pairs(runs, pairs))


def compare_exams(runs: Sequence[Run], settings: ComparisonSettings, focus: str) -> list[ExamRow]:
    """``exam_rows`` if the runs are of several exams, else []; corrected for logged comparisons too. Each
    exam's comparisons, also outside ``focus``, are logged beside that exam's base.
    """
    groups = group_runs_by_exam(runs)
    if len(groups) < 2:
        return []
    rows = exam_rows(runs, settings, focus)
    spent: dict[tuple[str, str], float] = {}
    for row in rows:
        pairs = [state.pair for state in row.states if state.pair is not None]
        ledgers = _log_pairs(groups[row.exam], pairs)
        for state in row.states:
            if state.pair is not None and state.pair.second in ledgers:
                spent[row.exam, state.name] = ledgers[state.pair.second].corrected_p_value
    return adjust_exam_p_values(rows, spent)


def _log_pairs(runs: list[Run], pairs: Sequence[HeadlineComparison]) -> dict[str, Ledger]:
    """Log the pairs on test beside the base, the first run; what the log then says, by the second run."""
    by_name = {run.name: run for run in runs[1:]}
    entries = {
        pair.second: new_comparison(
            by_name[pair.second],
            questions=pair.micro.n,
            p_value=pair.micro.p_value,
            difference=pair.micro.difference,
        )
        for pair in pairs
        if is_test_split_comparison(runs[0], by_name[pair.second])
    }
    if not entries:
        return {}
    log = log_comparisons(runs[0].path, list(entries.values()), next_level)
    return make_ledgers(log, entries)


def compare_recipe(name: str, base: Run, runs: list[Run]) -> RecipeEffect:
    """A recipe's effect over its seeds, logged as one comparison and corrected for the logged ones."""
    recipe = recipe_effect(name, base, runs)
    if not all(is_test_split_comparison(base, run) for run in runs):
        return recipe
    digests = sorted(str(run.facts["adapter_digest"]) for run in runs)
    entry = replace(
        new_comparison(
            runs[0],
            questions=recipe.questions,
            p_value=recipe.p_value,
            difference=recipe.effect,
            kind="recipe",
        ),
        adapter=hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        name=name,
    )
    log = log_comparisons(base.path, [entry], next_level)
    return replace(recipe, corrected_p_value=corrected_p_values(log)[entry.key])
