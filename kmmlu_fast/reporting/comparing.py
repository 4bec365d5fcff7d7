"""The comparisons of a report: every run against the base, looks at test counted, p corrected for all of
them.

In: loaded runs, the base first; settings. Out: comparisons and refusals. The one side effect is the base's
``peeks.json``.
"""

from __future__ import annotations

from kmmlu_fast.analysis.comparison import Comparison, Settings, compare_with_base, corrected_for_many
from kmmlu_fast.analysis.paired import mcnemar_midp
from kmmlu_fast.analysis.recipe import Recipe, recipe_effect
from kmmlu_fast.runs.peeks import counts_as_peek, record_peeks
from kmmlu_fast.runs.run import Run


def compared(runs: list[Run], settings: Settings) -> tuple[list[Comparison], list[tuple[str, str]]]:
    """``compare_with_base``, corrected for earlier looks of other adapters too."""
    pairs, refused = compare_with_base(runs, settings)
    return counted(runs, pairs), refused


def counted(runs: list[Run], pairs: list[Comparison]) -> list[Comparison]:
    """The pairs, corrected for each other and for adapters that were looked at before; these looks are
    recorded.
    """
    by_name = {run.name: run for run in runs[1:]}
    looked = [
        (by_name[pair.second], pair.micro.n, pair.micro.p_value, pair.micro.difference)
        for pair in pairs
        if counts_as_peek(runs[0], by_name[pair.second])
    ]
    earlier = record_peeks(runs[0], looked) if looked else []
    return corrected_for_many(
        pairs, [(1.0 if peek.p_value is None else peek.p_value, peek.difference) for peek in earlier]
    )


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
