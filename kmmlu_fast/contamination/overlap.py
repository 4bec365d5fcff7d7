"""Finds the rows of training data that overlap a split, and in what way.

In: frames with question_id, question, A-D (``dataset.load_frame``), or a third-party JSONL file. Out: a frame
of pairs (train_id, test_id, kind, similarity), each pair once under its strictest kind, and the overlapping
test ids. Knows nothing of models, sampling or training.

Kinds, strictest first ("normalised" = NFKC, lower case, letters and digits only):

    source       the row's source_id names a test (or dev) question
    exact        question and options are the same, character by character
    normalised   the same after normalisation, options in the same order
    reordered    the same after normalisation, options in any order
    question     the same normalised question, other options. Many questions share stems such as "which of
                 these is right?", so it must have MIN_STEM characters, or SHARED_OPTIONS options in common
    near         Jaccard similarity of the 3-grams of question and options >= NEAR, in any order of options
    contained    only for rows without options: the row's text has a share CONTAINED of the item's 3-grams,
                 or of its question's if that has at least MIN_STEM characters

Why NEAR = 0.7: pairs of KMMLU's train and test at 0.70-0.75 are still one exam question, reworded or with one
option replaced. One changed character keeps (n - 3) / (n + 3) of n 3-grams, at least 0.7 from n = 17, which
the shortest items have. ``shingles`` finds candidates by MinHash and verifies each exactly.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kmmlu_fast.contamination import shingles
from kmmlu_fast.contamination.compared_rows import ComparedRow, iter_compared_rows
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import file_stat_digest
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.files import cache_root, write_bytes_atomically, write_parquet_atomically
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.core.table_files import read_parquet
from kmmlu_fast.data import dataset as datasets

NEAR = 0.7
CONTAINED = 0.85
MIN_STEM = 15
SHARED_OPTIONS = 2
KINDS = ("source", "exact", "normalised", "reordered", "question", "near", "contained")
PAIR_SCHEMA = pl.Schema(
    {"train_id": pl.String, "test_id": pl.String, "kind": pl.String, "similarity": pl.Float64}
)
_RULES = 1  # part of the cache key: raise it when a rule above or the reading of files changes
_PAD = "\x02" * (shingles.SIZE - 1)  # between fields, so that no 3-gram depends on which option comes next


def normalise_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """Every column: NFKC, lower case, letters and digits only; a text of only symbols (an option such as
    "<=") just loses its spaces."""
    # One frame per step: in a single expression polars would normalise twice.
    lower = texts.select(pl.all().str.normalize("NFKC").str.to_lowercase())
    bare = lower.select(pl.all().str.replace_all(r"[^\p{L}\p{N}]+", ""))
    symbols = lower.select(pl.when(bare[name] == "").then(pl.col(name)).alias(name) for name in lower.columns)
    spaceless = symbols.select(pl.all().str.replace_all(r"\s", ""))
    return bare.select(pl.coalesce(spaceless[name], pl.col(name)).alias(name) for name in bare.columns)


def comparison_keys(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that rows are compared by: id, raw, stem, ordered, sorted (normalised texts), options,
    parts, and text (for 3-grams)."""
    letters = [letter for letter in OPTION_LETTERS if letter in frame.columns]
    names = ("question", *letters)
    raw = pl.concat_str(names, separator="\x1f", ignore_nulls=True)
    normal = normalise_texts(frame.select(names)).with_columns(
        frame["question_id"].alias("id"), frame.select(raw.alias("raw")).to_series()
    )
    options = pl.concat_list(letters).list.drop_nulls()
    return normal.select(
        "id",
        "raw",
        pl.col("question").alias("stem"),
        pl.concat_str(names, separator="\x1f", ignore_nulls=True).alias("ordered"),
        pl.concat_str("question", options.list.sort().list.join("\x1f"), separator="\x1f").alias("sorted"),
        options.alias("options"),
        pl.concat_list(names).list.drop_nulls().alias("parts"),
        pl.concat_str(
            pl.lit(_PAD), pl.concat_str(names, separator=_PAD, ignore_nulls=True), pl.lit(_PAD)
        ).alias("text"),
    )


@dataclass(frozen=True, slots=True)
class OverlapTarget:
    """A split prepared for comparison with many batches of rows."""

    keys: pl.DataFrame
    banded: shingles.MinHashIndex


def build_overlap_target(test: pl.DataFrame) -> OverlapTarget:
    """``comparison_keys`` and MinHash bands of questions that must not be trained on."""
    keys = comparison_keys(test)
    return OverlapTarget(keys, shingles.build_minhash_index(keys))


def find_overlapping_rows(
    train: pl.DataFrame, test: pl.DataFrame | OverlapTarget, near: float = NEAR
) -> pl.DataFrame:
    """Pairs (train_id, test_id, kind, similarity) of rows that overlap; ``similarity`` is the 3-grams'
    Jaccard similarity, 0-1."""
    target = test if isinstance(test, OverlapTarget) else build_overlap_target(test)
    left, right = comparison_keys(train), target.keys
    ids = (pl.col("id").alias("left"), pl.col("id_right").alias("right"))
    labelled = []
    for kind, key in (("exact", "raw"), ("normalised", "ordered"), ("reordered", "sorted")):
        pairs = left.join(right, on=key).select(*ids, pl.lit(1.0).alias("similarity"))
        labelled.append(_label_pairs(pairs, kind))
    shared = pl.col("options").list.set_intersection("options_right").list.len()
    stems = left.join(right, on="stem").filter(
        (pl.col("stem").str.len_chars() >= MIN_STEM) | (shared >= SHARED_OPTIONS)
    )
    labelled.append(_label_pairs(shingles.score_jaccard(stems.select(ids), left, right), "question"))
    scored = shingles.score_jaccard(shingles.find_minhash_candidates(left, target.banded), left, right)
    labelled.append(_label_pairs(scored.filter(pl.col("similarity") >= near), "near"))
    return keep_strictest_pairs(labelled)


def _label_pairs(scored: pl.DataFrame, kind: str) -> pl.DataFrame:
    return scored.select(
        pl.col("left").alias("train_id"),
        pl.col("right").alias("test_id"),
        pl.lit(kind).alias("kind"),
        "similarity",
    )


def keep_strictest_pairs(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """All pairs, each once, of the first frame that has it; sorted by ids."""
    pairs = pl.concat([pl.DataFrame(schema=PAIR_SCHEMA), *frames])
    strictest = pairs.unique(["train_id", "test_id"], keep="first", maintain_order=True)
    return strictest.sort("test_id", "train_id")


def repeated_rows(frame: pl.DataFrame) -> tuple[list[str], list[str]]:
    """(repeats, conflicting) ids within one frame: rows with the normalised question and options (in any
    order) of an earlier row, and all rows of groups whose answers disagree about the right option."""
    places = pl.col("answer").replace_strict(
        list(OPTION_LETTERS), range(len(OPTION_LETTERS)), return_dtype=pl.Int64
    )
    answer = pl.col("options").list.get(places)
    keys = comparison_keys(frame).with_columns(frame["answer"])
    rows = keys.with_columns(answer.alias("right")).with_row_index()
    marked = rows.with_columns(
        (pl.col("right").n_unique() > 1).over("sorted").alias("conflicting"),
        (pl.col("index") > pl.col("index").min().over("sorted")).alias("later"),
    )
    repeats = marked.filter(pl.col("later") & ~pl.col("conflicting"))["id"].to_list()
    return repeats, marked.filter("conflicting")["id"].to_list()


def match_contained_items(
    texts: pl.DataFrame, right: pl.DataFrame, anchors: shingles.Anchors
) -> pl.DataFrame:
    """Pairs of rows of ``texts`` (id, text) that contain a test item, inside other text or with other option
    markers. ``right``, ``anchors``: the items' keys and anchors, prepared once for many batches."""
    left = normalise_texts(texts.select("text")).with_columns(texts["id"])
    scored = shingles.score_containment(shingles.find_anchored_candidates(left, anchors), left, right)
    long_stem = right.select("id", pl.col("stem").str.len_chars() >= MIN_STEM)
    contained = scored.join(long_stem, left_on="right", right_on="id").filter(
        (pl.col("similarity") >= CONTAINED) | ((pl.col("first") >= CONTAINED) & pl.col("stem"))
    )
    return keep_strictest_pairs([_label_pairs(contained, "contained")])


def match_compared_rows(
    rows: Sequence[ComparedRow], target: OverlapTarget, anchors: shingles.Anchors
) -> pl.DataFrame:
    """Pairs of rows that overlap the target, each once under its strictest kind."""
    claimed = [(row.where, row.claims, "source", 1.0) for row in rows if row.claims]
    pairs = [pl.DataFrame(claimed, schema=PAIR_SCHEMA, orient="row")]
    questions = [(row.where, *row.item) for row in rows if row.item]
    if questions:
        pairs.append(find_overlapping_rows(comparison_frame(questions), target))
    texts = [(row.where, row.text) for row in rows if row.text]
    if texts:
        frame = pl.DataFrame(texts, schema={"id": pl.String, "text": pl.String}, orient="row")
        pairs.append(match_contained_items(frame, target.keys, anchors))
    return keep_strictest_pairs(pairs)


def comparison_frame(questions: list[tuple[str, ...]]) -> pl.DataFrame:
    """(id, question, option, ...) tuples as a frame that ``comparison_keys`` takes."""
    width = max(map(len, questions), default=2 + len(LETTERS))
    padded = [(*question, *[None] * (width - len(question))) for question in questions]
    names = ("question_id", "question", *OPTION_LETTERS[: width - 2])
    return pl.DataFrame(padded, schema=dict.fromkeys(names, pl.String), orient="row")


def load_guarded_split(dataset: str, split: str = "test", revision: str | None = None) -> pl.DataFrame:
    """Questions that must not be trained on: the split, and dev, whose questions are the exemplars."""
    frame = datasets.load_frame(dataset, split, revision=revision)
    if split != "dev":
        with contextlib.suppress(DataError):  # a dataset without dev has no exemplars to guard
            return pl.concat([frame, datasets.load_frame(dataset, "dev", revision=revision)])
    return frame


def find_file_overlap(
    path: Path, dataset: str, split: str = "test", revision: str | None = None
) -> pl.DataFrame:
    """Pairs of a training file (or folder, or hub id) that overlap a dataset's split or dev; empty = clean.
    DataError for what cannot be read."""
    target = build_overlap_target(load_guarded_split(dataset, split, revision))
    anchors = shingles.build_anchors(target.keys, MIN_STEM)
    return match_compared_rows(list(iter_compared_rows(str(path))), target, anchors)


def train_overlap(dataset: str, revision: str | None = None) -> WithNotes[pl.DataFrame]:
    """Pairs of the dataset's train split with its test and dev splits, over all subjects, with notes on
    missing train files.

    Cached (ids only) by the digest of both sides: all of KMMLU takes some 6 s, once. An index by the files'
    size and time leads to the cached pairs, so unchanged files are not read again.
    """
    files = datasets.split_files(dataset, "train", revision)
    index = _file_index_path([*files.value, *_guarded_files(dataset, revision)])
    pairs = _read_cached_overlap(index) if index is not None else None
    if pairs is None:
        train = datasets.read_frame(dataset, "train", revision=revision).value
        pairs = _find_overlap_cached(train, load_guarded_split(dataset, "test", revision), index)
    return WithNotes(pairs, files.notes)


def _guarded_files(dataset: str, revision: str | None) -> list[Path]:
    """The files of ``load_guarded_split``."""
    files = datasets.split_files(dataset, "test", revision).value
    with contextlib.suppress(DataError):
        files = files + datasets.split_files(dataset, "dev", revision).value
    return files


def _file_index_path(paths: list[Path]) -> Path | None:
    """The file that names these files' cached overlap."""
    with contextlib.suppress(OSError):
        if digest := file_stat_digest(paths):
            return cache_root() / "overlap" / f"files-{digest}.txt"
    return None


def _read_cached_overlap(index: Path) -> pl.DataFrame | None:
    with contextlib.suppress(DataError, OSError, ValueError):  # missing or damaged: computed again
        name = index.read_text(encoding="utf-8").strip()
        if re.fullmatch(rf"[0-9a-f-]+-rules{_RULES}\.parquet", name):
            return read_parquet(index.with_name(name), DataError, schema=PAIR_SCHEMA)
    return None


def _find_overlap_cached(train: pl.DataFrame, target: pl.DataFrame, index: Path | None) -> pl.DataFrame:
    """``find_overlapping_rows``, cached; the cache file's name is written to ``index``."""
    digests = [datasets.frame_digest(frame) for frame in (train, target)]
    path = cache_root() / "overlap" / f"{'-'.join(digests)}-rules{_RULES}.parquet"
    try:
        pairs = read_parquet(path, DataError, schema=PAIR_SCHEMA)
    except (DataError, OSError):  # missing or damaged: computed again
        pairs = find_overlapping_rows(train, target)
        if not _try_write_cache(path, lambda: write_parquet_atomically(path, pairs)):
            return pairs
    if index is not None:
        _try_write_cache(path, lambda: write_bytes_atomically(index, path.name.encode()))
    return pairs


def _try_write_cache(path: Path, write: Callable[[], None]) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        log_note(
            f"note: {path}: cannot be written ({error.strerror}), so the overlap is computed every time; set"
            " KMMLU_FAST_CACHE"
        )
        return False
    return True


def overlap_ids(
    dataset: str, split: str = "test", revision: str | None = None, train_file: Path | None = None
) -> frozenset[str]:
    """Question ids of ``split`` (test or dev) that overlap the dataset's train split, or ``train_file``:
    those that "clean test" leaves out."""
    if train_file is None:
        pairs = train_overlap(dataset, revision).value
    else:
        pairs = find_file_overlap(train_file, dataset, split, revision)
    return frozenset(filter_pairs_by_split(pairs, split)["test_id"])


def filter_pairs_by_split(pairs: pl.DataFrame, split: str) -> pl.DataFrame:
    return pairs.filter(pl.col("test_id").str.contains(f"/{split}/", literal=True))


def write_overlap_ids(path: Path, pairs: pl.DataFrame) -> None:
    """The overlapping test ids, sorted, and pairs per kind, as JSON. Ids only: the questions' texts are not
    ours to publish."""
    content = {
        "rules": {"near": NEAR, "contained": CONTAINED, "min_stem": MIN_STEM},
        "pairs": count_pairs_by_kind(pairs),
        "test_ids": sorted(set(pairs["test_id"])),
    }
    write_bytes_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def count_pairs_by_kind(pairs: pl.DataFrame) -> dict[str, int]:
    """Pairs per kind, strictest first, without kinds that have none."""
    counts = dict(pairs.group_by("kind").len().iter_rows())
    return {kind: counts[kind] for kind in KINDS if kind in counts}
