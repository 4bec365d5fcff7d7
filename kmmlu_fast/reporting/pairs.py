"""The comparisons of a report: every run against the base, looks at test counted, p corrected for all of
them.

In: loaded runs, the base first; settings. Out: comparisons, refusals, recipes, rows of exams. The one side
effect is ``peeks.json`` beside each base that adapters were compared with on test.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmmlu_fast.analysis.comparison import (
    Comparison,
    Settings,
    compare_pair,
    compare_with_base,
    corrected_for_many,
)
from kmmlu_fast.analysis.exam_comparison import ExamRow, by_exam, corrected_over_all, exam_rows
from kmmlu_fast.analysis.paired import mcnemar_midp
from kmmlu_fast.analysis.recipes import Recipe, recipe_effect
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.comparison_log import Peek, counts_as_peek, record_peeks
from kmmlu_fast.runs.run import Run

Refused = tuple[str, str]  # name of the run that was not compared, why


def compared(runs: list[Run], settings: Settings) -> tuple[list[Comparison], list[Refused]]:
    """``compare_with_base``, corrected for earlier looks of other adapters too. Prompts may differ."""
    pairs, refused = compare_with_base(runs, settings)
    return counted(runs, pairs), refused


def compared_strictly(runs: list[Run], settings: Settings) -> tuple[list[Comparison], list[Refused]]:
    """The same, but prompts may differ only where the settings allow it; RunError where the only pair, both
    with answers, cannot be compared.
    """
    pairs: list[Comparison] = []
    refused: list[Refused] = []
    for other in runs[1:]:
        try:
            pairs.append(compare_pair(runs[0], other, settings))
        except RunError as error:
            if len(runs) == 2 and not (runs[0].predictions is None or other.predictions is None):
                raise
            refused.append((other.name, str(error)))
    return counted(runs, pairs), refused


def counted(runs: list[Run], pairs: list[Comparison]) -> list[Comparison]:
    """The pairs, corrected for each other and for adapters that were looked at before; these looks are
    recorded.
    """
    earlier = _record(runs, pairs)
    return corrected_for_many(pairs, [(_p_of(peek), peek.difference) for peek in earlier])


def exams_compared(runs: Sequence[Run], settings: Settings, focus: str) -> list[ExamRow]:
    """``exam_rows``, where the runs are of several exams, else []; corrected for earlier looks too. Each
    exam's comparisons are looks at its test, also of exams that are not in ``focus``: they are recorded
    beside that exam's base.
    """
    groups = by_exam(runs)
    if len(groups) < 2:
        return []
    rows = exam_rows(runs, settings, focus)
    earlier: list[Peek] = []
    for row in rows:
        pairs = [state.pair for state in row.states if state.pair is not None]
        earlier += _record(groups[row.exam], pairs)
    return corrected_over_all(rows, [_p_of(peek) for peek in earlier]) if earlier else rows


def _record(runs: list[Run], pairs: Sequence[Comparison]) -> list[Peek]:
    """Record the pairs that are looks at test of the base, the first run; returns earlier ones of others."""
    by_name = {run.name: run for run in runs[1:]}
    looked = [
        (by_name[pair.second], pair.micro.n, pair.micro.p_value, pair.micro.difference)
        for pair in pairs
        if counts_as_peek(runs[0], by_name[pair.second])
    ]
    return record_peeks(runs[0], looked) if looked else []


def _p_of(peek: Peek) -> float:
    return 1.0 if peek.p_value is None else peek.p_value


def recipe_of(name: str, base: Run, runs: list[Run]) -> Recipe:
    """A recipe's effect over its seeds; each of its adapters is a look at test."""
    recipe = recipe_effect(name, base, runs)
    looked: list[tuple[Run, int, float | None, float]] = []
    for run in runs:
        both = base.frame.select("question_id", "correct").join(
            run.frame.select("question_id", "correct"), on="question_id", suffix="_run"
        )
        b = int((both["correct"] & ~both["correct_run"]).sum())
        c = int((~both["correct"] & both["correct_run"]).sum())
        looked.append((run, len(both), float(mcnemar_midp(b, c)), (c - b) / max(1, len(both))))
    record_peeks(base, looked)
    return recipe
