"""Questions that an exam asks more than once: four copies of a question are one observation, not four.

In: the joined questions of two runs, the dataset's texts if known. Out: the questions with one of each, and
how many were left out. Knows nothing of statistics.

A few repeats change nothing that can be seen (KMMLU: 1 % of the test, standard errors x 1.003), so they stay.
Above ``TOLERATED`` every interval and p would be too small; then each distinct question counts once.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.latest import keep_latest
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS

TOLERATED = 0.03  # share of the questions that may repeat another one
_NORMAL = r"[^\p{L}\p{N}]+"


def drop_repeated_questions(
    joined: pl.DataFrame, questions: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, int]:
    """The first of each question, and how many repeats were left out; all of them if repeats are few.

    The same question is: the same subject and key, and the same letters and digits in question and options
    (``questions``), or else the same prompt.
    """
    repeats, count = _find_repeats(joined, questions)
    if count <= TOLERATED * len(joined):
        return joined, 0
    return joined.filter(~repeats), count


# The latest answer: all pairs of a report have the same questions.
_latest_repeats: list[tuple[pl.DataFrame | None, pl.DataFrame, pl.Series, int]] = []


def _find_repeats(joined: pl.DataFrame, questions: pl.DataFrame | None) -> tuple[pl.Series, int]:
    """Which rows repeat an earlier one, and how many do."""
    asked = joined.select("subject", "answer", "prompt_digest" if questions is None else "question_id")
    for frame, rows, repeats, count in _latest_repeats:
        if frame is questions and rows.equals(asked):
            return repeats, count
    texts = _repeat_keys(joined, questions)
    repeats = pl.select(texts.is_not_null() & ~texts.is_first_distinct()).to_series()
    count = int(repeats.sum())
    _latest_repeats[:] = [(questions, asked, repeats, count)]
    return repeats, count


def _repeat_keys(joined: pl.DataFrame, questions: pl.DataFrame | None) -> pl.Series:
    """A text per question that is the same for its repeats; null if nothing is known about it."""
    if questions is not None:
        known = _text_digests(questions)
        same = joined.select("question_id", "answer").join(
            known, on="question_id", how="left", maintain_order="left"
        )
    else:
        digest = pl.when(pl.col("prompt_digest") != "").then("prompt_digest")
        same = joined.select("answer", digest.alias("repeat"))
    subject = joined["subject"].alias("subject")
    return (
        same.with_columns(subject)
        .select(pl.concat_str("subject", "repeat", "answer", separator=" "))
        .to_series()
    )


@keep_latest
def _text_digests(questions: pl.DataFrame) -> pl.DataFrame:
    """question_id and a 64-bit hash of the letters and digits in question and options; only of questions
    that have an option in common with another one of their subject, as repeats do.
    """
    letters = [letter for letter in OPTION_LETTERS if letter in questions.columns]
    if letters and "subject" in questions.columns:  # an eighth of KMMLU is left, and of the work
        last = _normalised_hash([letters[min(len(letters), len(LETTERS)) - 1]])
        questions = questions.filter(questions.select("subject", last).is_duplicated())
    return questions.select("question_id", _normalised_hash(["question", *letters]).alias("repeat"))


def _normalised_hash(names: list[str]) -> pl.Expr:
    text = pl.concat_str(names, separator=" ", ignore_nulls=True).str.normalize("NFKC").str.to_lowercase()
    return text.str.replace_all(_NORMAL, "").hash(0)
