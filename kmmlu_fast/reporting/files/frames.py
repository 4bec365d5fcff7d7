"""Everything that was found as JSON, and as plain frames: what exports and ``compare`` write.

In: findings, words. Out: JSON-able documents, frames by name. Shares and differences 0-1. Writes nothing.
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


def report_data_json(found: ReportData, t: Translator) -> dict[str, Any]:
    """Everything that was found, JSON-able; shares and differences 0-1."""
    settings = found.settings
    headlines = [*found.headlines, *(compute_headline(run, settings.overlap) for run in found.others)]
    document: dict[str, Any] = {
        "runs": [asdict(row) for row in headlines],
        "comparisons": [_pair_json(pair, t) for pair in found.pairs],
        "recipes": [asdict(recipe) for recipe in found.recipes],
        "key_audit": asdict(found.key_audit) if found.key_audit else None,
    }
    return document | (exam_text.exam_table_json(found.exams, t) if found.exams else {})


def _pair_json(pair: PairComparison, t: Translator) -> dict[str, Any]:
    document = {name: getattr(pair, name) for name in pair.__dataclass_fields__}
    document |= {name: document[name].to_dicts() for name in ("supercategories", "subjects")}
    document |= {name: asdict(document[name]) for name in ("micro", "macro")}
    optional = ("clean", "debiased", "letters", "overlap_gap", "moved")
    document |= {name: asdict(document[name]) if document[name] else None for name in optional}
    document |= {
        "endpoints": [asdict(endpoint) for endpoint in pair.endpoints],
        "significant": pair.significant,
        "equal": pair.equal,
    }
    return {"verdict": verdict_lines(pair, t), **document}


def report_frames(found: ReportData, with_texts: bool = True) -> Iterator[tuple[str, pl.DataFrame]]:
    """subjects (a row a run and subject), predictions (a row a run and question), questions (a row a
    question: texts stand here once), errors (a row a run and subject), error_profile (a row a run and sort of
    question), confident_errors (a row a run and question), changes (a row a pair and subject); those that
    there are, by name. Without ``with_texts`` no text of questions or models.
    """
    yield "subjects", pl.concat(_subjects_frame(run) for run in found.runs)
    if found.answered:
        yield "predictions", _predictions_frame(found.answered, with_texts)
    if found.answered and found.questions is not None and with_texts:
        yield "questions", _questions_frame(found.answered, found.questions)
    yield from error_text.error_frames(found).items()
    if found.pairs:
        yield "changes", pl.concat(subject_changes_frame(pair) for pair in found.pairs)


def subject_changes_frame(pair: PairComparison) -> pl.DataFrame:
    """A pair's subjects, a row each, under the names of its runs; shares and differences 0-1."""
    names = (
        pl.lit(name).alias(column)
        for name, column in ((pair.first, "first_run"), (pair.second, "second_run"))
    )
    return pair.subjects.select(*names, pl.all())


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
    columns = [
        *(
            "question_id",
            "subject",
            "supercategory",
            "split",
            "row",
            "answer",
            "prediction",
            "correct",
            "read_by",
            "forced",
        ),
        *LOGPROB_COLUMNS,
        *(
            _MORE_LOGPROBS
            if any(run.frame["option_logprobs"].is_not_null().any() for run in answered)
            else ()
        ),
        *("confidence", "debiased_prediction", "prompt_tokens", "output_tokens"),
    ]
    text = [pl.col("texts").list.join("\n\n", ignore_nulls=True).alias("text")] if with_texts else []
    return pl.concat(
        run.frame.with_columns(_extra_logprob_columns()).select(
            pl.lit(run.name).alias("run"), *columns, *text
        )
        for run in answered
    )


def _questions_frame(answered: Sequence[Run], questions: pl.DataFrame) -> pl.DataFrame:
    asked = pl.concat(run.frame.select("question_id") for run in answered).unique()
    letters = [name for name in OPTION_LETTERS if name in questions.columns]
    shown = human_accuracy.with_known_human_accuracy(questions).select(
        "question_id", "subject", "question", *letters, "answer", "human_accuracy"
    )
    return shown.join(asked, on="question_id", how="semi", maintain_order="left")


def _extra_logprob_columns() -> list[pl.Expr]:
    """Log-probabilities from E on, as columns like those of A to D."""
    values = pl.col("option_logprobs").list
    return [
        values.get(place, null_on_oob=True).alias(name)
        for place, name in enumerate(_MORE_LOGPROBS, len(LETTERS))
    ]
