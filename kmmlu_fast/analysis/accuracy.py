"""Accuracy with intervals and letter counts, computed from a run's predictions.

In: predictions (the columns of PREDICTION_SCHEMA, optionally ``model`` as one more group). Out: small frames,
and the ``Metrics`` of ``summarise_predictions``. Knows nothing of engines, files or reports. Everything is
polars expressions: no Python loop over rows.

Accuracy counts unparsed answers as wrong. Standard errors are lm-eval's, sqrt(p(1-p)/(n-1)), None for one
question. Intervals are Wilson's at 95 % (Wilson 1927), which stay within 0-1 and are valid at p = 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.runs.metrics import Metrics
from kmmlu_fast.runs.run import Run

Z = 1.959963984540054  # two-sided 95 % of the normal distribution
FEW = 20  # questions per subject; below, no single subject is called weak

PARSED = pl.col("prediction").is_in(OPTION_LETTERS).fill_null(False)


def wilson_interval_exprs(correct: pl.Expr, total: pl.Expr, z: float = Z) -> tuple[pl.Expr, pl.Expr]:
    """Lower and upper end of Wilson's interval for ``correct`` of ``total``, by default at 95 %; null if
    total is 0.
    """
    n = total.cast(pl.Float64)
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)).sqrt()
    low, high = (centre - half).clip(0.0, 1.0), (centre + half).clip(0.0, 1.0)
    return pl.when(total > 0).then(low), pl.when(total > 0).then(high)


def wilson_interval(correct: float, total: float) -> tuple[float, float]:
    """The same for two numbers (fractions if questions are weighted); ``total`` above 0."""
    low, high = wilson_interval_exprs(pl.lit(correct), pl.lit(total))
    ends = pl.select(low.alias("low"), high.alias("high")).row(0)
    return float(ends[0]), float(ends[1])


def _accuracy_exprs(total: pl.Expr, correct: pl.Expr) -> list[pl.Expr]:
    """accuracy, stderr, ci_low, ci_high from two count columns."""
    p = correct / total
    low, high = wilson_interval_exprs(correct, total)
    return [
        pl.when(total > 0).then(p).alias("accuracy"),
        pl.when(total > 1).then((p * (1 - p) / (total - 1)).sqrt()).alias("stderr"),
        low.alias("ci_low"),
        high.alias("ci_high"),
    ]


def with_correct_column(frame: pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    lazy = frame.lazy()
    if "correct" in lazy.collect_schema().names():
        return lazy
    return lazy.with_columns((pl.col("prediction") == pl.col("answer")).fill_null(False).alias("correct"))


def accuracy_by_group_lazy(frame: pl.DataFrame | pl.LazyFrame, group: str | list[str]) -> pl.LazyFrame:
    """``accuracy_by_group``, not yet collected."""
    keys = [group] if isinstance(group, str) else group
    counts = (
        with_correct_column(frame)
        .group_by(keys)
        .agg(
            pl.len().cast(pl.Int64).alias("total"),
            pl.col("correct").sum().cast(pl.Int64).alias("correct"),
            (~PARSED).sum().cast(pl.Int64).alias("unparsed"),
        )
        .sort(keys)
    )
    errors = (pl.col("total") - pl.col("correct")).alias("errors")
    scored = counts.with_columns(errors, *_accuracy_exprs(pl.col("total"), pl.col("correct")))
    return scored.select(
        *keys, "total", "correct", "errors", "accuracy", "stderr", "ci_low", "ci_high", "unparsed"
    )


def accuracy_by_group(frame: pl.DataFrame | pl.LazyFrame, group: str | list[str]) -> pl.DataFrame:
    """One row per group (``"subject"``, ``["model", "subject"]``, ...), sorted by it:
    total, correct, errors, accuracy, stderr, ci_low, ci_high, unparsed."""
    return accuracy_by_group_lazy(frame, group).collect()


def macro_accuracy(frame: pl.DataFrame | pl.LazyFrame, group: str | list[str] | None = None) -> pl.DataFrame:
    """Mean of subject accuracies, one row per ``group`` (one row without it): accuracy, stderr, subjects.

    The standard error treats subjects as strata: sqrt(sum of squared subject errors) / number of subjects.
    """
    keys = [group] if isinstance(group, str) else group or []
    subjects = accuracy_by_group_lazy(frame, [*keys, "subject"])
    known = pl.col("stderr").is_not_null().all() & (pl.len() > 0)
    stderr = pl.when(known).then((pl.col("stderr") ** 2).sum().sqrt() / pl.len())
    columns = [pl.col("accuracy").mean(), stderr.alias("stderr"), pl.len().cast(pl.Int64).alias("subjects")]
    result = subjects.group_by(keys).agg(columns).sort(keys) if keys else subjects.select(columns)
    return result.collect()


def letter_confusion_counts(
    frame: pl.DataFrame | pl.LazyFrame, group: list[str] | None = None
) -> pl.DataFrame:
    """Letter confusion: rows of (group..., answer, prediction, count); ``prediction`` is null if unparsed."""
    keys = [*(group or []), "answer", "prediction"]
    letter = pl.when(PARSED).then(pl.col("prediction")).alias("prediction")
    return (
        frame.lazy()
        .with_columns(letter)
        .group_by(keys)
        .agg(pl.len().cast(pl.Int64).alias("count"))
        .sort(keys)
        .collect()
    )


def letters_of_frame(frame: pl.DataFrame | pl.LazyFrame) -> tuple[str, ...]:
    """The option letters, A first, of the question with the most options (A-D if that is not known)."""
    if "num_options" not in frame.lazy().collect_schema().names():
        return LETTERS
    most = frame.lazy().select(pl.col("num_options").max()).collect().item()
    return OPTION_LETTERS[: most or len(LETTERS)]


def chance_level(frame: pl.DataFrame | pl.LazyFrame) -> float:
    """Accuracy of guessing evenly among each question's options, 0-1."""
    if "num_options" not in frame.lazy().collect_schema().names():
        return 1 / len(LETTERS)
    mean = frame.lazy().select((1 / pl.col("num_options")).mean()).collect().item()
    return 1 / len(LETTERS) if mean is None else round(float(mean), 12)


def above_chance(accuracy: float, chance: float) -> float:
    """0 = as good as guessing evenly, 1 = all right, negative = worse than guessing. Comparable between
    exams with different numbers of options.
    """
    return (accuracy - chance) / (1 - chance)


def letter_confusion_table(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Letter confusion: rows ``answer`` A, B, ..., columns A, B, ..., unparsed (counts)."""
    letters = letters_of_frame(frame)
    counts = letter_confusion_counts(frame)
    columns = [
        pl.col("count")
        .filter(pl.col("prediction").eq_missing(pl.lit(letter, dtype=pl.String)))
        .sum()
        .alias(letter or "unparsed")
        for letter in (*letters, None)
    ]
    table = counts.group_by("answer").agg(columns)
    return (
        pl.DataFrame({"answer": letters})
        .join(table, on="answer", how="left", maintain_order="left")
        .fill_null(0)
    )


def _rows_by_key(table: pl.DataFrame, key: str) -> dict[str, dict[str, Any]]:
    return {row.pop(key): row for row in table.drop("errors").to_dicts()}


def _ratio_or_none(part: Any, whole: Any) -> float | None:
    return part / whole if whole else None


def summarise_predictions(predictions: pl.DataFrame) -> Metrics:
    """All headline numbers of a run. Shares and accuracies are 0-1; None if the denominator is 0.

    ``accuracy_without_forced`` counts answers forced after the model's own reasoning as unparsed, hence
    wrong. ``accuracy_debiased`` (option rotations) covers the questions that have a debiased prediction, None
    if none has. ``baselines.subject_majority`` always answers each subject's most frequent key letter.
    """
    frame = with_correct_column(predictions)
    tables = [accuracy_by_group_lazy(frame, key) for key in ("subject", "supercategory")]
    key_counts = frame.group_by("subject", "answer").agg(pl.len().alias("count"))
    majority = key_counts.group_by("subject").agg(pl.col("count").max()).select(pl.col("count").sum())
    head, subjects, groups, most = pl.collect_all([_headline_counts(frame), *tables, majority])
    row = head.row(0, named=True)
    total = row["total"]
    letters = _letter_summary(frame, total)
    macro = macro_accuracy(frame).row(0, named=True)
    values = {
        "num_questions": total,
        "micro": {name: row[name] for name in ("accuracy", "stderr", "ci_low", "ci_high", "correct")},
        "macro": {name: macro[name] for name in ("accuracy", "stderr")},
        "supercategories": _rows_by_key(groups, "supercategory"),
        "subjects": _rows_by_key(subjects, "subject"),
        "unparsed": row["unparsed"],
        "forced": row["forced"],
        "baselines": {
            **letters.pop("baselines"),
            "subject_majority": _ratio_or_none(most.item() or 0, total),
            "uniform": chance_level(frame),
        },
        **letters,
        "accuracy_debiased": _ratio_or_none(row["debiased_correct"], row["debiased_total"]),
        "accuracy_without_forced": _ratio_or_none(row["correct_unforced"], total),
        "prompt_tokens": row["prompt_tokens"],
        "output_tokens": row["output_tokens"],
    }
    return Metrics.model_validate(values)


def _headline_counts(frame: pl.LazyFrame) -> pl.LazyFrame:
    """One row: the counts over all questions, and accuracy with its interval."""
    names = frame.collect_schema().names()

    def column_or(name: str, default: pl.Expr) -> pl.Expr:
        return pl.col(name) if name in names else default

    forced = column_or("forced", pl.col("correct") & False).fill_null(False)
    debiased = column_or("debiased_prediction", pl.lit(None, dtype=pl.String))
    return frame.select(
        pl.len().cast(pl.Int64).alias("total"),
        pl.col("correct").sum().cast(pl.Int64),
        (~PARSED).sum().alias("unparsed"),
        forced.sum().alias("forced"),
        (pl.col("correct") & ~forced).sum().alias("correct_unforced"),
        debiased.is_not_null().sum().alias("debiased_total"),
        (debiased == pl.col("answer")).sum().alias("debiased_correct"),
        column_or("prompt_tokens", pl.lit(0)).sum().cast(pl.Int64).alias("prompt_tokens"),
        column_or("output_tokens", pl.lit(0)).sum().cast(pl.Int64).alias("output_tokens"),
    ).with_columns(*_accuracy_exprs(pl.col("total"), pl.col("correct")))


def _letter_summary(frame: pl.LazyFrame, total: int) -> dict[str, Any]:
    """Letter shares, recall by letter, and the accuracy of constant answers (``baselines``)."""
    table, letters = letter_confusion_table(frame), letters_of_frame(frame)
    questions = pl.sum_horizontal(*letters, "unparsed").alias("questions")
    keys = dict(table.select("answer", questions).iter_rows())
    recall = {letter: _ratio_or_none(table[row, letter], keys[letter]) for row, letter in enumerate(letters)}
    best = max(letters, key=lambda letter: keys[letter])
    return {
        "baselines": {
            **{f"always_{letter}": _ratio_or_none(keys[letter], total) for letter in letters},
            "best_constant": {
                "letter": best if total else None,
                "accuracy": _ratio_or_none(keys[best], total),
            },
        },
        "predicted_letter_share": {c: _ratio_or_none(table[c].sum(), total) for c in (*letters, "unparsed")},
        "answer_letter_share": {letter: _ratio_or_none(keys[letter], total) for letter in letters},
        "recall": recall,
        "balanced_accuracy": mean_recall(recall.values()),
    }


def run_accuracy_rows(run: Run, keys: list[str]) -> list[list[Any]]:
    """Rows of (keys..., correct, total, accuracy, low, high) from a run's scores (score files included)."""
    sums = [pl.col("correct").sum(), pl.col("total").sum()]
    frame = run.scores.group_by(keys, maintain_order=True).agg(sums) if keys else run.scores.select(sums)
    return [list(row) for row in with_accuracy_interval(frame).iter_rows()]


def with_accuracy_interval(frame: pl.DataFrame, level: float = 0.95) -> pl.DataFrame:
    """Adds accuracy, low and high (Wilson, at ``level``) to ``correct`` and ``total``."""
    accuracy, *_ = _accuracy_exprs(pl.col("total"), pl.col("correct"))
    low, high = wilson_interval_exprs(
        pl.col("correct"), pl.col("total"), NormalDist().inv_cdf(0.5 + level / 2)
    )
    return frame.with_columns(accuracy, low.alias("low"), high.alias("high"))


def mean_recall(recall: Iterable[float | None]) -> float | None:
    """Balanced accuracy: the mean recall over the letters that the key has; None if it has none."""
    values = [value for value in recall if value is not None]
    return sum(values) / len(values) if values else None


def expected_calibration_error(binned: pl.DataFrame) -> float:
    """ECE: mean over questions of their bin's |accuracy - confidence|; ``binned``: confidence (mean),
    accuracy, total.
    """
    gaps = np.abs(binned["accuracy"].to_numpy() - binned["confidence"].to_numpy())
    return float(np.average(gaps, weights=binned["total"].to_numpy()))
