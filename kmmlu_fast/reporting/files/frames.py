"""All results as JSON and as plain frames, for exports and ``compare``.

In: ``ReportData``, a translator. Out: JSON-able documents, frames by name. Shares and differences 0-1. Writes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.headline import compute_headline
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting import human_accuracy
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording import error_text, exam_text
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.reporting.wording.verdict import verdict_lines
from kmmlu_fast.runs.run import Run

_MORE_LOGPROBS = tuple(f"logprob_{letter}" for letter in OPTION_LETTERS[len(LETTERS) :])


def report_data_json(report: ReportData, t: Translator) -> dict[str, Any]:
    """All results, JSON-able; shares and differences 0-1."""
    settings = report.settings
    headlines = [*report.headlines, *(compute_headline(run, settings.overlap) for run in report.others)]
    document: dict[str, Any] = {
        "runs": [asdict(row) for row in headlines],
        "comparisons": [_pair_json(pair, t) for pair in report.pairs],
        "ranks": [asdict(rank) for rank in report.ranks],
        "recipes": [asdict(recipe) for recipe in report.recipes],
        "key_audit": asdict(report.key_audit) if report.key_audit else None,
    }
    return document | (exam_text.exam_table_json(report.exams, t) if report.exams else {})


def _pair_json(pair: PairComparison, t: Translator) -> dict[str, Any]:
    document = {name: getattr(pair, name) for name in pair.__dataclass_fields__}
    document |= {name: document[name].to_dicts() for name in ("supercategories", "subjects")}
    document |= {name: asdict(document[name]) for name in ("micro", "macro")}
    optional = ("clean", "debiased", "letters", "forms", "overlap_gap", "moved")
    document |= {name: asdict(document[name]) if document[name] else None for name in optional}
    document |= {
        "endpoints": [asdict(endpoint) for endpoint in pair.endpoints],
        "significant": pair.significant,
        "equal": pair.equal,
        "undecided": pair.undecided,
        "outcome": pair.outcome,
    }
    return {"verdict": verdict_lines(pair, t), **document}


def report_frames(report: ReportData, with_texts: bool = True) -> Iterator[tuple[str, pl.DataFrame]]:
    """The available frames by name: subjects (a row per run and subject), predictions (per run and question),
    questions (per question, with its texts), errors (per run and subject), error_profile (per run and kind of
    question), confident_errors (per run and question), changes (per pair and subject). Without
    ``with_texts``, no text of questions or models.
    """
    yield "subjects", pl.concat(_subjects_frame(run) for run in report.runs)
    if report.answered:
        yield "predictions", _predictions_frame(report.answered, with_texts)
    if report.answered and report.questions is not None and with_texts:
        yield "questions", _questions_frame(report.answered, report.questions)
    yield from error_text.error_frames(report).items()
    if report.pairs:
        yield "changes", pl.concat(subject_changes_frame(pair) for pair in report.pairs)


def subject_changes_frame(pair: PairComparison) -> pl.DataFrame:
    """A row per subject of a pair, with the names of its runs; shares and differences 0-1."""
    first, second = pl.lit(pair.first).alias("first_run"), pl.lit(pair.second).alias("second_run")
    return pair.subjects.select(first, second, pl.all())


def _subjects_frame(run: Run) -> pl.DataFrame:
    korean = {name: subject.korean for name, subject in SUBJECTS.items()}
    return run.scores.select(
        pl.lit(run.name).alias("run"),
        "subject",
        pl.col("subject").replace_strict(korean, default=pl.col("subject")).alias("korean"),
        "supercategory",
        "correct",
        "total",
        (pl.col("correct") / pl.col("total")).alias("accuracy"),
    )


def _predictions_frame(answered: Sequence[Run], with_texts: bool) -> pl.DataFrame:
    columns: list[str | pl.Expr] = ["question_id", "subject", "supercategory", "split", "row", "answer"]
    columns += ["prediction", "correct", "read_by", "forced", *LOGPROB_COLUMNS]
    if any(run.frame["option_logprobs"].is_not_null().any() for run in answered):
        columns += _MORE_LOGPROBS
    columns += ["confidence", "debiased_prediction", "prompt_tokens", "output_tokens"]
    if with_texts:
        columns.append(pl.col("texts").list.join("\n\n", ignore_nulls=True).alias("text"))
    more = _extra_logprob_columns()
    return pl.concat(
        run.frame.with_columns(more).select(pl.lit(run.name).alias("run"), *columns) for run in answered
    )


def _questions_frame(answered: Sequence[Run], questions: pl.DataFrame) -> pl.DataFrame:
    asked = pl.concat(run.frame.select("question_id") for run in answered).unique()
    letters = [name for name in OPTION_LETTERS if name in questions.columns]
    frame = human_accuracy.with_known_human_accuracy(questions).select(
        "question_id", "subject", "question", *letters, "answer", "human_accuracy"
    )
    return frame.join(asked, on="question_id", how="semi", maintain_order="left")


def _extra_logprob_columns() -> list[pl.Expr]:
    """Log-probabilities from E on, as columns like those of A to D."""
    values = pl.col("option_logprobs").list
    return [
        values.get(place, null_on_oob=True).alias(name)
        for place, name in enumerate(_MORE_LOGPROBS, len(LETTERS))
    ]
