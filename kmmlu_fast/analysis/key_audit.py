"""Suspected errors in the key: questions that many runs confidently answer with the same other letter, and
repeated questions whose keys disagree.

In: runs over the same questions, the dataset's frame if known. Out: question ids (never texts), and each
run's accuracy with and without them. A suspicion, not a correction: models that agree on another letter may
share an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from kmmlu_fast.runs.run import Run

MIN_RUNS = 5
AGREEMENT = 0.8  # share of the runs that give the same wrong letter
CONFIDENCE = 0.6  # mean confidence of the runs that have one


@dataclass(frozen=True, slots=True)
class KeyAudit:
    """Ids by reason, and accuracy (run, all questions, without them), 0-1."""

    # (question id, key, the runs' letter, share of the runs), highest share first
    against_key: tuple[tuple[str, str, str, float], ...]
    conflicting: tuple[str, ...]  # repeated questions with different keys
    accuracy: tuple[tuple[str, float, float | None], ...]


def audit_key(runs: list[Run], questions: pl.DataFrame | None = None) -> KeyAudit | None:
    """The audit; None if fewer than MIN_RUNS runs have predictions and no repeated question conflicts."""
    answered = [run for run in runs if run.predictions is not None]
    against: list[tuple[str, str, str, float]] = []
    if len(answered) >= MIN_RUNS:
        columns = ["question_id", "answer", "prediction", "confidence"]
        predictions = pl.concat([run.frame.select(columns) for run in answered])
        votes = predictions.group_by("question_id", "answer", "prediction").agg(
            pl.len().alias("votes"), pl.col("confidence").mean()
        )
        asked = predictions.group_by("question_id").agg(pl.len().alias("runs"))
        share = pl.col("votes") / pl.col("runs")
        suspects = (
            votes.filter(pl.col("prediction").is_not_null() & (pl.col("prediction") != pl.col("answer")))
            .join(asked, on="question_id")
            .filter(
                (share >= AGREEMENT)
                & (pl.col("runs") >= MIN_RUNS)
                & (pl.col("confidence").fill_null(1.0) >= CONFIDENCE)
            )
            .select("question_id", "answer", "prediction", share.alias("share"))
            .sort("share", "question_id", descending=[True, False])
        )
        against = list(suspects.iter_rows())
    conflicting: list[str] = []
    if questions is not None:
        from kmmlu_fast.contamination.overlap import repeated_rows

        conflicting = sorted(repeated_rows(questions)[1])
    if not against and not conflicting and len(answered) < MIN_RUNS:
        return None
    suspect = {row[0] for row in against} | set(conflicting)
    accuracy = []
    for run in answered:
        rest = run.frame.filter(~pl.col("question_id").is_in(suspect))
        without = float(rest["correct"].mean()) if len(rest) else None  # type: ignore[arg-type]
        accuracy.append((run.name, float(run.frame["correct"].mean()), without))  # type: ignore[arg-type]
    return KeyAudit(tuple(against), tuple(conflicting), tuple(accuracy))
