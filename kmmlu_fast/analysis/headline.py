"""One run in one row: accuracy over questions and over subjects, letter habits, constant-answer baselines.

In: a loaded run, the ids of overlapping questions. Out: a JSON-able row. Knows nothing of languages or
layout.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from kmmlu_fast.analysis import letter_prior as decomposition
from kmmlu_fast.analysis.accuracy import letters_in
from kmmlu_fast.analysis.letter_prior import RunLetters
from kmmlu_fast.analysis.paired import by_size
from kmmlu_fast.runs.run import Run


def headline(
    run: Run, overlap: frozenset[str] = frozenset(), sizes: dict[str, int] | None = None
) -> dict[str, Any]:
    """One run's row of the multi-run table: micro (Wilson interval), macro, clean micro, letters, tokens,
    seconds; None = not known.

    ``sizes``: the subjects' full numbers of questions. Where the run does not hold them in proportion
    (``--limit``), micro weights each subject by its size (``weighted``); else it would be macro under another
    name.
    """
    from kmmlu_fast.analysis.accuracy import wilson

    totals = run.scores.select(pl.col("correct").sum(), pl.col("total").sum())
    correct, total = totals.row(0)
    interval = wilson(pl.col("correct"), pl.col("total"))
    low, high = totals.select(interval[0].alias("low"), interval[1].alias("high")).row(0)
    micro, weighted = correct / total, False
    weights = by_size(run.scores.rename({"total": "n"}), sizes)
    if weights is not None:
        n = run.scores["total"].to_numpy()
        micro, weighted = float(weights @ (run.scores["correct"].to_numpy() / n)), True
        size = 1.0 / float((weights**2 / n).sum())  # questions of equal weight that would be as sure
        ends = pl.DataFrame({"correct": [micro * size], "total": [size]}).select(
            interval[0].alias("low"), interval[1].alias("high")
        )
        low, high = ends.row(0)
    frame = run.predictions
    groups = (
        run.scores.group_by("supercategory")
        .agg(pl.col("correct").sum() / pl.col("total").sum())
        .sort("supercategory")
    )
    clean = None
    if frame is not None and overlap:
        clean = frame.filter(~pl.col("question_id").is_in(overlap))["correct"].mean()
    speed = run.metrics.get("speed") or {}
    alike = frame is not None and frame["num_options"].n_unique() == 1
    letters = letter_habit_of(frame) if alike and frame is not None else None
    tokens = None if frame is None else int(frame["prompt_tokens"].sum()) or None
    return {
        "name": run.name,
        "kind": run.kind,
        "questions": total,
        "correct": correct,
        "micro": micro,
        "weighted": weighted,
        "low": low,
        "high": high,
        "macro": float((run.scores["correct"] / run.scores["total"]).mean()),  # type: ignore[arg-type]
        "clean": clean,  # type: ignore[arg-type]
        "balanced": letters.balanced_accuracy if letters else run.metrics.get("balanced_accuracy"),
        "expected": None if letters is None else letters.expected_accuracy,
        "shares": None if letters is None else letters.shares,
        "unparsed": None if frame is None else frame["prediction"].null_count(),
        "forced": None if frame is None else int(frame["forced"].sum()),
        "prompt_tokens": tokens,
        "output_tokens": None if frame is None or tokens is None else int(frame["output_tokens"].sum()),
        "seconds": speed.get("seconds") if speed.get("questions", total) == total else None,
        "supercategories": dict(groups.iter_rows()),
    }


def letter_habit_of(frame: pl.DataFrame) -> decomposition.LetterHabit:
    """A single run's letters against its key's; every question has the same number of options."""
    known = letters_in(frame)
    key, answered = (decomposition.as_codes(frame[name], known) for name in ("answer", "prediction"))
    return decomposition.letter_habit(key, RunLetters(answered), len(known))
