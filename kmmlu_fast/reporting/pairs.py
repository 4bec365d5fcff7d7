"""The comparisons of a report: every run against the base, comparisons on test logged, p corrected for all of
them.

In: loaded runs, the base first; settings. Out: comparisons, refusals, recipes, rows of exams. The one side
effect is ``peeks.json`` beside each base that adapters were compared with on test.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmmlu_fast.analysis.comparison import (
    ComparisonSettings,
    PairComparison,
    adjust_pair_p_values,
    compare_pair,
    compare_with_base,
)
from kmmlu_fast.analysis.exam_comparison import ExamRow, adjust_exam_p_values, exam_rows, group_runs_by_exam
from kmmlu_fast.analysis.paired import mcnemar_midp
from kmmlu_fast.analysis.recipes import RecipeEffect, recipe_effect
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.comparison_log import LoggedComparison, is_test_split_comparison, log_comparisons
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


def log_and_correct_pairs(runs: list[Run], pairs: list[PairComparison]) -> list[PairComparison]:
    """Log the pairs; returns them corrected for each other and for earlier comparisons of other adapters."""
    earlier = [(_logged_p_value(entry), entry.difference) for entry in _log_pairs(runs, pairs)]
    return adjust_pair_p_values(pairs, earlier)


def compare_exams(runs: Sequence[Run], settings: ComparisonSettings, focus: str) -> list[ExamRow]:
    """``exam_rows`` if the runs are of several exams, else []; corrected for earlier comparisons too. Each
    exam's comparisons, also outside ``focus``, are logged beside that exam's base.
    """
    groups = group_runs_by_exam(runs)
    if len(groups) < 2:
        return []
    rows = exam_rows(runs, settings, focus)
    earlier: list[LoggedComparison] = []
    for row in rows:
        pairs = [state.pair for state in row.states if state.pair is not None]
        earlier += _log_pairs(groups[row.exam], pairs)
    return adjust_exam_p_values(rows, [_logged_p_value(entry) for entry in earlier]) if earlier else rows


def _log_pairs(runs: list[Run], pairs: Sequence[PairComparison]) -> list[LoggedComparison]:
    """Log the pairs on test beside the base, the first run; returns earlier entries of other adapters."""
    by_name = {run.name: run for run in runs[1:]}
    entries = [
        (by_name[pair.second], pair.micro.n, pair.micro.p_value, pair.micro.difference)
        for pair in pairs
        if is_test_split_comparison(runs[0], by_name[pair.second])
    ]
    return log_comparisons(runs[0], entries) if entries else []


def _logged_p_value(entry: LoggedComparison) -> float:
    return 1.0 if entry.p_value is None else entry.p_value


def compare_recipe(name: str, base: Run, runs: list[Run]) -> RecipeEffect:
    """A recipe's effect over its seeds; the comparison of each adapter is logged."""
    recipe = recipe_effect(name, base, runs)
    entries: list[tuple[Run, int, float | None, float]] = []
    for run in runs:
        both = base.frame.select("question_id", "correct").join(
            run.frame.select("question_id", "correct"), on="question_id", suffix="_run"
        )
        b = int((both["correct"] & ~both["correct_run"]).sum())
        c = int((~both["correct"] & both["correct_run"]).sum())
        entries.append((run, len(both), float(mcnemar_midp(b, c)), (c - b) / max(1, len(both))))
    log_comparisons(base, entries)
    return recipe
