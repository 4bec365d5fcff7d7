"""Build kmmlu_fast/data/public/difficulty.parquet from a table of public predictions.

    python scripts/build_difficulty.py predictions_25_models_test.csv

In: a CSV with ``_config``, ``_row``, ``answer`` and a column of letters a model, such as the results of
hsr87/evaluate-llm-on-korean-dataset. Out: question ids and one number each, sorted by id; no question text.
The same input gives the same numbers.
"""

from __future__ import annotations

import sys

import numpy as np
import polars as pl

from kmmlu_fast.data.difficulty import TABLE, estimate_ease
from kmmlu_fast.runs.loading import load_all_runs


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python scripts/build_difficulty.py PREDICTIONS.csv", file=sys.stderr)
        return 2
    frames = [run.frame for run in load_all_runs(argv)]
    first = frames[0]
    right = np.stack([frame["correct"].to_numpy() for frame in frames])
    numbers = pl.Series("ease", estimate_ease(right, first["subject"].to_list()).round(4), dtype=pl.Float32)
    table = first.select("question_id").with_columns(numbers).sort("question_id")
    table.write_parquet(TABLE, compression="zstd", compression_level=22)
    size = TABLE.stat().st_size / 1024
    print(f"{TABLE.name}: {len(table):,} questions, {len(frames)} models, {size:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
