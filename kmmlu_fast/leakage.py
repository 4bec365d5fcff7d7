"""``python -m kmmlu_fast.leakage TRAIN_FILE``: does a training file contain questions of the test split?

In: training files (default: the dataset's own train split). Out: the pairs on stdout and, on request, a file
of ids; exit code 1 if a training file overlaps.
"""

from __future__ import annotations

import sys

import polars as pl

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.contamination.check import find_table_overlap, load_guarded_exams
from kmmlu_fast.contamination.config import LeakageConfig
from kmmlu_fast.contamination.overlap import (
    PAIR_SCHEMA,
    count_pairs_by_kind,
    filter_pairs_by_split,
    find_overlapping_rows,
    load_guarded_split,
    write_overlap_ids,
)
from kmmlu_fast.core.files import claim_outputs
from kmmlu_fast.core.untrusted_text import strip_control_characters
from kmmlu_fast.data import dataset as datasets


def run_leakage_command(argv: list[str] | None = None) -> int:
    """Exit codes: 0 clean (or no training file was given), 1 a training file overlaps, 2 an error."""
    return run_main(lambda: _run_leakage(argv))


def _run_leakage(argv: list[str] | None) -> int:
    config = parse_config(LeakageConfig, argv, prog="python -m kmmlu_fast.leakage")
    if config.output:
        inputs = [*config.train_file, *datasets.dataset_input_files(config.dataset)]
        claim_outputs([config.output], inputs, overwrite=config.overwrite)
    target = load_guarded_split(config.dataset, config.split, config.dataset_revision)
    all_pairs = [pl.DataFrame(schema=PAIR_SCHEMA)]
    if config.exam:
        exams = load_guarded_exams(config.dataset, config.exam, config.dataset_revision).frame
        target = pl.concat([target, exams], how="diagonal")
        target = target.unique("question_id", keep="first", maintain_order=True)
    for path in config.train_file:
        pairs, rows = find_table_overlap(str(path), target)
        all_pairs.append(pairs)
        _print_overlap(f"{path}: {rows} rows", pairs, target, config)
    if not config.train_file:
        noted_train = datasets.read_frame(config.dataset, "train", revision=config.dataset_revision)
        train = noted_train.log_and_unwrap()
        all_pairs.append(find_overlapping_rows(train, target))
        _print_overlap(f"{config.dataset} train: {len(train)} rows", all_pairs[-1], target, config)
    together = pl.concat(all_pairs)
    if config.output:
        write_overlap_ids(config.output, filter_pairs_by_split(together, config.split))
        print(strip_control_characters(f"overlapping ids written to {config.output}"))
    return 1 if len(together) and config.train_file else 0


def _print_overlap(head: str, pairs: pl.DataFrame, target: pl.DataFrame, config: LeakageConfig) -> None:
    kinds = " and ".join(sorted({"dev", config.split}, reverse=True))
    train_count, test_count = pairs["train_id"].n_unique(), pairs["test_id"].n_unique()
    head = strip_control_characters(head)
    print(f"{head}; {train_count} of them overlap {test_count} of {len(target)} {kinds} questions")
    for kind, number in count_pairs_by_kind(pairs).items():
        print(f"  {kind}: {number} pairs")
        shown = pairs.filter(pl.col("kind") == kind).head(config.show)
        for train_id, test_id, similarity in shown.select("train_id", "test_id", "similarity").iter_rows():
            print(strip_control_characters(f"    {train_id} ~ {test_id} ({similarity:.2f})"))


if __name__ == "__main__":
    sys.exit(run_leakage_command())
