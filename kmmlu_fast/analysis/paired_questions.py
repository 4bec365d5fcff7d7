"""The questions of two runs side by side: one frame, and the arrays that the statistics take.

In: two runs. Out: a joined frame in the first run's order, ``PairArrays``; RunError if the runs are over
different questions. Knows nothing of statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from kmmlu_fast.analysis.letter_bias.letter_prior import letter_codes
from kmmlu_fast.analysis.letter_bias.offsets import Letters
from kmmlu_fast.analysis.strata import Codes, Floats
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import FORM_COLUMNS, LETTERS, LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.runs.run import Run

# What a headline takes, and what the rest of a comparison takes besides.
HEADLINE_COLUMNS = ("question_id", "answer", "correct", "prompt_digest")
ANSWER_COLUMNS = (
    "prediction",
    "debiased_prediction",
    "num_options",
    "option_logprobs",
    *LOGPROB_COLUMNS,
    *FORM_COLUMNS,
)


def join_runs(
    first: Run, second: Run, intersection: bool, *, headline_only: bool = False
) -> tuple[pl.DataFrame, tuple[int, int, int]]:
    """The shared questions, one row each (``first``, ``second``: right or wrong), and how many were dropped:
    only in the first, only in the second, with two keys. RunError if any is, unless ``intersection``.
    """
    columns = HEADLINE_COLUMNS if headline_only else (*HEADLINE_COLUMNS, *ANSWER_COLUMNS)
    left = first.frame.select("subject", "supercategory", *columns)
    right = second.frame.select(columns)
    joined = _join_by_question(left, right)
    same_key = joined["answer"] == joined["answer_second"]
    conflicts = int((~same_key).sum())
    dropped = (len(left) - len(joined), len(right) - len(joined), conflicts)
    if any(dropped) and not intersection:
        raise RunError(
            f"{first.name} and {second.name} are over different questions ({dropped[0]} questions only in the"
            f" first, {dropped[1]} only in the second, {conflicts} with two different keys); give"
            " --intersection to compare the questions they share"
        )
    if not same_key.all(ignore_nulls=False):
        joined = joined.filter(same_key)
    if joined.is_empty():
        raise RunError(
            f"{first.name} and {second.name} share no question; compare runs over the same dataset and split"
        )
    return joined.with_columns(first=pl.col("correct"), second=pl.col("correct_second")), dropped


def _join_by_question(left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """The inner join, in the left frame's order; the right one's columns end in "_second". Ids are distinct,
    so frames over the same questions in the same order need no search.
    """
    if left["question_id"].equals(right["question_id"]):
        others = right.drop("question_id")
        return left.hstack(others.rename({name: f"{name}_second" for name in others.columns}))
    return left.join(right, on="question_id", how="inner", suffix="_second", maintain_order="left")


@dataclass(frozen=True, slots=True)
class PairArrays:
    """The joined questions as arrays."""

    key: Letters
    options: Letters  # how many each question has
    strata: Letters
    letters: tuple[Letters, Letters]
    # (n, most options) each, A first, NaN if missing; None unless both runs have some
    logprobs: tuple[Floats, Floats] | None


def make_pair_arrays(joined: pl.DataFrame, counts: pl.DataFrame) -> PairArrays:
    """``counts``: from ``paired.subject_counts``; its rows are the strata."""
    most = int(joined["num_options"].max() or len(LETTERS))  # type: ignore[arg-type]
    first_logprobs, second_logprobs = (_logprob_matrix(joined, suffix, most) for suffix in ("", "_second"))
    logprobs = None
    if first_logprobs is not None and second_logprobs is not None:
        logprobs = (first_logprobs, second_logprobs)
    key, first, second = (
        letter_codes(joined[name], OPTION_LETTERS[:most])
        for name in ("answer", "prediction", "prediction_second")
    )
    return PairArrays(
        key,
        joined["num_options"].to_numpy().astype(np.int64),
        stratum_codes(joined, counts),
        (first, second),
        logprobs,
    )


def stratum_codes(joined: pl.DataFrame, counts: pl.DataFrame) -> Codes:
    """Each question's row in ``counts``."""
    by = ["subject", "supercategory"]
    rows = counts.select(by).with_row_index("stratum")
    strata = joined.select(by).join(rows, on=by, how="left", maintain_order="left")
    return strata["stratum"].to_numpy().astype(np.int64)


def _logprob_matrix(joined: pl.DataFrame, suffix: str, most: int) -> Floats | None:
    if joined[f"{LOGPROB_COLUMNS[0]}{suffix}"].null_count() == len(joined):
        return None
    more = pl.col(f"option_logprobs{suffix}")
    columns = [more.list.get(place, null_on_oob=True) for place in range(most)]
    for place, name in enumerate(LOGPROB_COLUMNS[:most]):
        columns[place] = pl.coalesce(f"{name}{suffix}", columns[place])
    named = [column.fill_null(float("nan")).alias(str(place)) for place, column in enumerate(columns)]
    return joined.select(named).to_numpy()
