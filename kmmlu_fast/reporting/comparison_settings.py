"""How pairs of runs are compared: the flags as the analysis takes them, with the overlap list read.

In: flags, the dataset's frame if known. Out: ``ComparisonSettings``. Knows nothing of what is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import expand_path, parse_json, read_text
from kmmlu_fast.core.table_files import read_csv, read_parquet
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.reporting.config import PairsConfig
from kmmlu_fast.reporting.inputs import resolve_dataset, resolve_exam


def make_comparison_settings(
    config: PairsConfig,
    questions: pl.DataFrame | None = None,
    sizes_from: pl.DataFrame | None = None,
    *,
    what_moved: bool = True,
) -> ComparisonSettings:
    """How pairs are compared; the overlap list is the union of everything that --overlap names.

    ``questions``: the dataset's frame, for repeated questions and, with ``what_moved``, the kinds of question
    gained or lost; ``sizes_from``: only for the subjects' full sizes.
    """
    overlap: frozenset[str] = frozenset()
    for entry in config.overlap:
        if entry not in ("auto", "none"):
            overlap |= read_overlap_ids(expand_path(entry, "--overlap"))
    known = "auto" not in config.overlap or len(config.overlap) > 1 or config.split != "test"
    of_kmmlu = config.split == "test" and resolve_exam(config) is None
    if "auto" in config.overlap and of_kmmlu and (dataset := resolve_dataset(config)) is not None:
        from kmmlu_fast.contamination.overlap import overlap_ids

        try:
            overlap |= overlap_ids(dataset, config.split)
            known = True
        except DataError:
            # a dataset without a train split overlaps nothing
            known |= dataset == "sample" or is_complete_dataset(Path(dataset))
    return ComparisonSettings(
        intersection=config.intersection,
        different_prompts=config.different_prompts,
        overlap=overlap,
        overlap_known=known,
        margin=config.margin / 100,
        population=config.population,
        sizes=subject_sizes(questions if questions is not None else sizes_from),
        questions=questions,
        what_moved=what_moved,
    )


def read_overlap_ids(path: Path) -> frozenset[str]:
    """Question ids: one per line, JSON (a list, or ``leakage``'s file), or a CSV or Parquet column
    ``test_id`` or ``question_id``.
    """
    try:
        if path.suffix in (".csv", ".parquet"):
            frame = read_csv(path, DataError) if path.suffix == ".csv" else read_parquet(path, DataError)
            column = next(
                (name for name in ("test_id", "question_id") if name in frame.columns),
                next(iter(frame.columns), ""),
            )
            if not column or frame.schema[column] != pl.String:
                raise DataError(f"{path}: has no column test_id or question_id of texts")
            ids: Any = frame[column].to_list()
        else:
            text = read_text(path, DataError)
            is_json = text.lstrip()[:1] in ("[", "{")
            document = parse_json(text, str(path), DataError) if is_json else text.split()
            ids = document.get("test_ids") if isinstance(document, dict) else document
    except DataError as error:
        raise DataError(f"--overlap {error}; give a text file of question ids, one per line") from error
    if not isinstance(ids, list):
        raise DataError(
            f"--overlap {path}: has no list test_ids; give a text file of question ids, one per line"
        )
    for value in ids:
        if not isinstance(value, str) or value.count("/") < 2:
            raise DataError(
                f"--overlap {path}: {bounded_repr(value)} is not a question id such as Accounting/test/17"
            )
    return frozenset(ids)


def is_complete_dataset(folder: Path) -> bool:
    """Whether a directory is the user's own dataset, not the hub's cache, which has only requested files."""
    return folder.is_dir() and "snapshots" not in folder.parts


def subject_sizes(questions: pl.DataFrame | None) -> dict[str, int]:
    """How many questions each subject has in the dataset's split; {} if the dataset is not known."""
    return {} if questions is None else dict(questions.group_by("subject").len().iter_rows())
