"""Build kmmlu_fast/runs/published_answers.parquet from a table of public predictions.

    python scripts/build_published_answers.py predictions.csv

In: what ``scripts/public_predictions.py`` writes, or the same by ``_config`` and ``_row``; and the runs that
``published_answers.yaml`` names. Out: subject, row, key and a column of letters for each run; what is not a
letter is empty. No question text. The same input gives the same bytes.
"""

from __future__ import annotations

import sys

import polars as pl

from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.runs.loading import load_run_argument
from kmmlu_fast.runs.published import ANSWERS_TABLE, load_published_answers


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python scripts/build_published_answers.py PREDICTIONS.csv", file=sys.stderr)
        return 2
    answers = load_published_answers()
    frames = [load_run_argument(f"{argv[0]}:{each.column}")[0].frame for each in answers.runs]
    letters = pl.Enum(LETTERS)
    subjects = pl.Enum(frames[0]["subject"].unique(maintain_order=True))
    table = frames[0].select(
        pl.col("subject").cast(subjects), pl.col("row").cast(pl.Int32), pl.col("answer").cast(letters)
    )
    columns = [
        frame["prediction"].cast(letters).alias(each.name)
        for frame, each in zip(frames, answers.runs, strict=True)
    ]
    table = table.with_columns(columns)
    table.write_parquet(ANSWERS_TABLE, compression="zstd", compression_level=22, statistics=False)
    size = ANSWERS_TABLE.stat().st_size / 1024
    print(f"{ANSWERS_TABLE.name}: {len(table):,} questions, {len(columns)} runs, {size:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
