"""Overlap between training data and a split: exact, normalised, reordered, by question alone, nearly, or
contained.

In: frames with question_id, question, A-D (``dataset.load_frame``), or a third-party JSONL file. Out: a frame
of pairs (train_id, test_id, kind, similarity), each pair once under its strictest kind, and the list of test
ids that overlap. Knows nothing of models, sampling or training.

Kinds, strictest first ("normalised" = NFKC, lower case, letters and digits only):

    source       the row's own source_id names a test (or dev) question
    exact        question and options are the same, character by character
    normalised   the same after normalisation, options in the same order
    reordered    the same after normalisation, options in any order
    question     the same normalised question, other options. Stems such as "which of these is right?" are asked of many things:
                 it counts only with MIN_STEM characters or more, or where SHARED_OPTIONS of the options are
                 the same as well
    near         Jaccard similarity of the 3-grams of question and options >= NEAR, whatever the options' order
    contained    only for rows without options of their own: the row's text holds CONTAINED of the item's 3-grams, or of its
                 question's where that has MIN_STEM characters or more

Why NEAR = 0.7: pairs of KMMLU's train and test at 0.70-0.75 are still one exam question, reworded or with one
option replaced; and one changed character leaves (n - 3) / (n + 3) of n 3-grams, 0.7 or more from n = 17,
which the shortest items have. ``shingles`` finds candidates by MinHash, and verifies each one exactly.
"""  # noqa: E501

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.contamination import shingles
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import file_stat_digest
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.files import cache_root, write_bytes_atomically, write_parquet_atomically
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.reading import read_parquet
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.data import dataset as datasets
from kmmlu_fast.data.exam_lookup import shipped_exam_names
from kmmlu_fast.data.records import all_text, question_and_options, read_records
from kmmlu_fast.data.subjects import SUBJECTS

NEAR = 0.7
CONTAINED = 0.85
MIN_STEM = 15
SHARED_OPTIONS = 2
KINDS = ("source", "exact", "normalised", "reordered", "question", "near", "contained")
PAIR_SCHEMA = pl.Schema(
    {"train_id": pl.String, "test_id": pl.String, "kind": pl.String, "similarity": pl.Float64}
)
_RULES = 1  # part of the cache's key: raise it when a rule above changes, or how files are read
_PAD = "\x02" * (shingles.SIZE - 1)  # between fields, so that no 3-gram depends on which option stands next


def normalise_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """Every column: NFKC, lower case, letters and digits only; a text of symbols alone (an option such as
    "<=") only loses its spaces.
    """
    # Frame by frame: within one expression polars would normalise twice.
    lower = texts.select(pl.all().str.normalize("NFKC").str.to_lowercase())
    bare = lower.select(pl.all().str.replace_all(r"[^\p{L}\p{N}]+", ""))
    symbols = lower.select(pl.when(bare[name] == "").then(pl.col(name)).alias(name) for name in lower.columns)
    spaceless = symbols.select(pl.all().str.replace_all(r"\s", ""))
    return bare.select(pl.coalesce(spaceless[name], pl.col(name)).alias(name) for name in bare.columns)


def comparison_keys(frame: pl.DataFrame) -> pl.DataFrame:
    """What rows are compared by: id, raw, stem, ordered, sorted (normalised texts), options,
    parts, and the text for 3-grams.
    """
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
    """A split made ready to be compared with, for rows that come in pieces."""

    keys: pl.DataFrame
    banded: shingles.MinHashIndex


def build_overlap_target(test: pl.DataFrame) -> OverlapTarget:
    """``comparison_keys`` and MinHash bands of what must not be trained on."""
    right = comparison_keys(test)
    return OverlapTarget(right, shingles.build_minhash_index(right))


def find_overlapping_rows(
    train: pl.DataFrame, test: pl.DataFrame | OverlapTarget, near: float = NEAR
) -> pl.DataFrame:
    """Pairs (train_id, test_id, kind, similarity) of rows that overlap, by ids; ``similarity``
    is the 3-grams' Jaccard, 0-1.
    """
    target = test if isinstance(test, OverlapTarget) else build_overlap_target(test)
    left, right = comparison_keys(train), target.keys
    found = []
    for kind, key in (("exact", "raw"), ("normalised", "ordered"), ("reordered", "sorted")):
        pairs = left.join(right, on=key).select(pl.col("id").alias("left"), pl.col("id_right").alias("right"))
        found.append(_label_pairs(pairs.with_columns(pl.lit(1.0).alias("similarity")), kind))
    shared = pl.col("options").list.set_intersection("options_right").list.len()
    stems = left.join(right, on="stem").filter(
        (pl.col("stem").str.len_chars() >= MIN_STEM) | (shared >= SHARED_OPTIONS)
    )
    pairs = stems.select(pl.col("id").alias("left"), pl.col("id_right").alias("right"))
    found.append(_label_pairs(shingles.score_jaccard(pairs, left, right), "question"))
    scored = shingles.score_jaccard(shingles.find_minhash_candidates(left, target.banded), left, right)
    found.append(_label_pairs(scored.filter(pl.col("similarity") >= near), "near"))
    return keep_strictest_pairs(found)


def _label_pairs(scored: pl.DataFrame, kind: str) -> pl.DataFrame:
    columns = {
        "train_id": pl.col("left"),
        "test_id": pl.col("right"),
        "kind": pl.lit(kind),
        "similarity": pl.col("similarity"),
    }
    return scored.select(expression.alias(name) for name, expression in columns.items())


def keep_strictest_pairs(found: Iterable[pl.DataFrame]) -> pl.DataFrame:
    together = pl.concat([pl.DataFrame(schema=PAIR_SCHEMA), *found])
    return together.unique(["train_id", "test_id"], keep="first", maintain_order=True).sort(
        "test_id", "train_id"
    )


def repeated_rows(frame: pl.DataFrame) -> tuple[list[str], list[str]]:
    """(repeats, conflicting) within one frame: rows whose normalised question and options (in any order) an
    earlier row has, and all rows of such groups whose keys disagree about the right option.
    """
    places = pl.col("answer").replace_strict(
        list(OPTION_LETTERS), range(len(OPTION_LETTERS)), return_dtype=pl.Int64
    )
    answer = pl.col("options").list.get(places)
    rows = (
        comparison_keys(frame)
        .with_columns(frame["answer"])
        .with_columns(answer.alias("right"))
        .with_row_index()
    )
    conflicting = (pl.col("right").n_unique() > 1).over("sorted").alias("conflicting")
    marked = rows.with_columns(
        conflicting, (pl.col("index") > pl.col("index").min().over("sorted")).alias("later")
    )
    repeats = marked.filter(pl.col("later") & ~pl.col("conflicting"))["id"].to_list()
    return repeats, marked.filter("conflicting")["id"].to_list()


def find_contained_items(texts: pl.DataFrame, test: pl.DataFrame) -> pl.DataFrame:
    """Pairs of rows of ``texts`` (id, text: of any layout) that hold a test item, within other
    text or under other markers.
    """
    right = comparison_keys(test)
    return match_contained_items(texts, right, shingles.build_anchors(right, MIN_STEM))


def match_contained_items(
    texts: pl.DataFrame, right: pl.DataFrame, anchors: shingles.Anchors
) -> pl.DataFrame:
    """The same with the items' ``comparison_keys`` and anchors made beforehand: for texts that come in pieces."""
    left = normalise_texts(texts.select("text")).with_columns(texts["id"])
    scored = shingles.score_containment(shingles.find_anchored_candidates(left, anchors), left, right)
    long_stem = right.select("id", pl.col("stem").str.len_chars() >= MIN_STEM)
    held = scored.join(long_stem, left_on="right", right_on="id").filter(
        (pl.col("similarity") >= CONTAINED) | ((pl.col("first") >= CONTAINED) & pl.col("stem"))
    )
    return keep_strictest_pairs([_label_pairs(held, "contained")])


def find_record_overlap(records: list[dict[str, Any]], test: pl.DataFrame) -> pl.DataFrame:
    """Pairs of a training file's records that overlap ``test``; train_id is "row N", 1-based."""
    ids = [f"row {i}" for i in range(1, len(records) + 1)]
    sources = [
        (i, str(r["source_id"]), "source", 1.0)
        for i, r in zip(ids, records, strict=True)
        if is_held_out_source(r.get("source_id"))
    ]
    parsed = [(i, *item) for i, item in zip(ids, map(question_and_options, records), strict=True) if item]
    letters = OPTION_LETTERS[: max((len(row) - 2 for row in parsed), default=len(LETTERS))]
    padded = [(*row, *[None] * (len(letters) + 2 - len(row))) for row in parsed]
    named = pl.DataFrame(
        padded, schema=dict.fromkeys(("question_id", "question", *letters), pl.String), orient="row"
    )
    known = {row[0] for row in parsed}
    free = [(i, all_text(r)) for i, r in zip(ids, records, strict=True) if i not in known]
    texts = pl.DataFrame(free, schema={"id": pl.String, "text": pl.String}, orient="row")
    claimed = pl.DataFrame(sources, schema=PAIR_SCHEMA, orient="row")
    return keep_strictest_pairs(
        [claimed, find_overlapping_rows(named, test), find_contained_items(texts, test)]
    )


def is_held_out_source(source_id: Any) -> bool:
    """Whether a row says that it is a test or dev question of KMMLU, or of another exam that comes with the
    package."""
    if not isinstance(source_id, str):
        return False
    if found := re.fullmatch(r"([A-Za-z-]+)/(?:test|dev)/\d+", source_id):
        return found[1] in SUBJECTS or found[1] in shipped_exam_names()
    found = re.fullmatch(r"([a-z-]+)/.+/(?:test|dev)/\d+", source_id)
    return found is not None and found[1] in shipped_exam_names()


def load_guarded_split(dataset: str, split: str = "test", revision: str | None = None) -> pl.DataFrame:
    """What must not be trained on: the split, and dev, whose questions are the few-shot exemplars."""
    frame = datasets.load_frame(dataset, split, revision=revision)
    try:
        return (
            pl.concat([frame, datasets.load_frame(dataset, "dev", revision=revision)])
            if split != "dev"
            else frame
        )
    except DataError:  # a dataset without dev has no exemplars to guard
        return frame


def find_file_overlap(
    path: Path, dataset: str, split: str = "test", revision: str | None = None
) -> pl.DataFrame:
    """Pairs of a JSONL or JSON training file that overlap a dataset's split or dev; empty =
    clean. DataError for unreadable files.
    """
    return find_record_overlap(read_records(path), load_guarded_split(dataset, split, revision))


def train_overlap(dataset: str, revision: str | None = None) -> WithNotes[pl.DataFrame]:
    """Pairs of the dataset's train split with its test and dev splits, over all subjects, with the notes on
    what of train is absent.

    Kept in the user's cache (ids only) by the digest of both sides: all of KMMLU takes some 6 s, once. Beside
    it stands by which files, as they lie there, it was found: they are not even read again.
    """
    files = datasets.split_files(dataset, "train", revision)
    seen = _file_index_path([*files.value, *_guarded_files(dataset, revision)])
    if seen is not None and (known := _read_cached_overlap(seen)) is not None:
        return WithNotes(known, files.notes)
    train = datasets.read_frame(dataset, "train", revision=revision).value
    return WithNotes(
        _find_overlap_cached(train, load_guarded_split(dataset, "test", revision), seen), files.notes
    )


def _guarded_files(dataset: str, revision: str | None) -> list[Path]:
    """The files of ``load_guarded_split``."""
    files = datasets.split_files(dataset, "test", revision).value
    with contextlib.suppress(DataError):
        files = files + datasets.split_files(dataset, "dev", revision).value
    return files


def _file_index_path(paths: list[Path]) -> Path | None:
    """Where it stands under which name these files' overlap is kept."""
    with contextlib.suppress(OSError):
        if digest := file_stat_digest(paths):
            return cache_root() / "overlap" / f"files-{digest}.txt"
    return None


def _read_cached_overlap(seen: Path) -> pl.DataFrame | None:
    with contextlib.suppress(DataError, OSError, ValueError):  # absent, unreadable or damaged: computed again
        name = seen.read_text(encoding="utf-8").strip()
        if re.fullmatch(rf"[0-9a-f-]+-rules{_RULES}\.parquet", name):
            return read_parquet(seen.with_name(name), DataError, schema=PAIR_SCHEMA)
    return None


def _find_overlap_cached(train: pl.DataFrame, target: pl.DataFrame, seen: Path | None) -> pl.DataFrame:
    """``find_overlapping_rows``, from the cache where it was found before; ``seen`` is told under which name."""
    digests = [datasets.frame_digest(frame) for frame in (train, target)]
    path = cache_root() / "overlap" / f"{'-'.join(digests)}-rules{_RULES}.parquet"
    try:
        found = read_parquet(path, DataError, schema=PAIR_SCHEMA)
    except (DataError, OSError):  # absent, unreadable or damaged: computed again
        found = find_overlapping_rows(train, target)
        if not _try_write_cache(path, lambda: write_parquet_atomically(path, found)):
            return found
    if seen is not None:
        _try_write_cache(path, lambda: write_bytes_atomically(seen, path.name.encode()))
    return found


def _try_write_cache(path: Path, write: Callable[[], None]) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        log_note(
            f"note: {path}: cannot be written ({error.strerror}), so that the overlap is computed anew each"
            " time; set KMMLU_FAST_CACHE"
        )
        return False
    return True


def overlap_ids(
    dataset: str, split: str = "test", revision: str | None = None, train_file: Path | None = None
) -> frozenset[str]:
    """Question ids of ``split`` (test or dev) that overlap the dataset's train split, or
    ``train_file``: what "clean test" leaves out.
    """
    pairs = (
        train_overlap(dataset, revision).value
        if train_file is None
        else find_file_overlap(train_file, dataset, split, revision)
    )
    return frozenset(filter_pairs_by_split(pairs, split)["test_id"])


def filter_pairs_by_split(pairs: pl.DataFrame, split: str) -> pl.DataFrame:
    return pairs.filter(pl.col("test_id").str.contains(f"/{split}/", literal=True))


def write_overlap_ids(path: Path, pairs: pl.DataFrame) -> None:
    """The overlapping test ids, sorted, and pairs a kind, as JSON. Ids only: the questions'
    texts are not ours to publish.
    """
    content = {
        "rules": {"near": NEAR, "contained": CONTAINED, "min_stem": MIN_STEM},
        "pairs": count_pairs_by_kind(pairs),
        "test_ids": sorted(set(pairs["test_id"])),
    }
    write_bytes_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def count_pairs_by_kind(pairs: pl.DataFrame) -> dict[str, int]:
    """Pairs a kind, strictest first, kinds without any left out."""
    found = dict(pairs.group_by("kind").len().iter_rows())
    return {kind: found[kind] for kind in KINDS if kind in found}
