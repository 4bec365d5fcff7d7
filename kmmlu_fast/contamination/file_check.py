"""The questions of an exam's test split found in training files, printed pair by pair.

In: the configuration of ``leakage``. Out: text on stdout, a file of ids on request, and whether a training
file overlaps. Knows nothing of how overlap is found (``overlap``).
"""

from __future__ import annotations

import polars as pl

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
from kmmlu_fast.data.row_files import require_source


def check_training_files(config: LeakageConfig) -> bool:
    """Print what overlaps; whether a training file does (the dataset's own train split does not count)."""
    if config.output:
        inputs = [*config.train_file, *datasets.dataset_input_files(config.dataset)]
        claim_outputs([config.output], inputs, overwrite=config.overwrite)
    for path in config.train_file:
        require_source(str(path))
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
    return bool(len(together) and config.train_file)


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
