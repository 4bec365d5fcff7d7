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
from kmmlu_fast.analysis.strata import Floats
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import FORM_COLUMNS, LETTERS, LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.runs.run import Run


def join_runs(first: Run, second: Run, intersection: bool) -> tuple[pl.DataFrame, tuple[int, int, int]]:
    """The shared questions, one row each (``first``, ``second``: right or wrong), and how many were dropped:
    only in the first, only in the second, with two keys. RunError if any is, unless ``intersection``.
    """
    columns = [
        "question_id",
        "answer",
        "prediction",
        "correct",
        "debiased_prediction",
        "num_options",
        "option_logprobs",
        "prompt_digest",
        *LOGPROB_COLUMNS,
        *FORM_COLUMNS,
    ]
    left = first.frame.select("subject", "supercategory", *columns)
    right = second.frame.select(columns)
    joined = left.join(right, on="question_id", how="inner", suffix="_second", maintain_order="left")
    conflicts = int((joined["answer"] != joined["answer_second"]).sum())
    dropped = (len(left) - len(joined), len(right) - len(joined), conflicts)
    if any(dropped) and not intersection:
        raise RunError(
            f"{first.name} and {second.name} are over different questions ({dropped[0]} questions only in the"
            f" first, {dropped[1]} only in the second, {conflicts} with two different keys); give"
            " --intersection to compare the questions they share"
        )
    joined = joined.filter(pl.col("answer") == pl.col("answer_second"))
    if joined.is_empty():
        raise RunError(
            f"{first.name} and {second.name} share no question; compare runs over the same dataset and split"
        )
    return joined.with_columns(first=pl.col("correct"), second=pl.col("correct_second")), dropped


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
    by = ["subject", "supercategory"]
    strata = joined.select(by).join(
        counts.select(by).with_row_index("stratum"), on=by, how="left", maintain_order="left"
    )
    key, first, second = (
        letter_codes(joined[name], OPTION_LETTERS[:most])
        for name in ("answer", "prediction", "prediction_second")
    )
    return PairArrays(
        key,
        joined["num_options"].to_numpy().astype(np.int64),
        strata["stratum"].to_numpy().astype(np.int64),
        (first, second),
        logprobs,
    )


def _logprob_matrix(joined: pl.DataFrame, suffix: str, most: int) -> Floats | None:
    if joined[f"{LOGPROB_COLUMNS[0]}{suffix}"].null_count() == len(joined):
        return None
    more = pl.col(f"option_logprobs{suffix}")
    columns = [more.list.get(place, null_on_oob=True) for place in range(most)]
    for place, name in enumerate(LOGPROB_COLUMNS[:most]):
        columns[place] = pl.coalesce(f"{name}{suffix}", columns[place])
    named = [column.fill_null(float("nan")).alias(str(place)) for place, column in enumerate(columns)]
    return joined.select(named).to_numpy()
