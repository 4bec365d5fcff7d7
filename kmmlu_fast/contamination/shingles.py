"""Finds texts that may be similar (by MinHash, or by anchors of contained texts) and scores them exactly.

In: frames with an ``id`` and normalised texts. Out: frames of candidate pairs (left, right), and pairs with
their exact similarity, never an estimate. Knows nothing of KMMLU.

MinHash is rensa's (maintained, MIT, no dependencies): 128 permutations, 32 bands of 4 rows. A pair with
Jaccard similarity s shares a band with probability 1 - (1 - s^4)^32: 0.99985 at 0.7, 1 - 5e-8 at 0.8. Nine of
ten pairs that share a band have similarity 0.2 or less, so pairs that agree in fewer than 60 permutations are
dropped. A pair with 0.7 agrees in 90 on average, and in fewer than 60 with probability 2e-8 (binomial).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

SIZE = 3  # characters of a shingle
_ANCHOR = 5  # characters of the windows that find contained texts
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 42
_AGREE = 60  # permutations in which two candidates must agree
_WHOLE_ANCHORS, _WHOLE_NEEDED = 8, 3
_FIRST_ANCHORS, _FIRST_NEEDED = 4, 2
_COARSE_BITS = 24
_COMMON = 16  # windows of more items than this are poor anchors
_CHUNK = 16_384  # texts at a time: bounds memory

Array = np.ndarray[Any, Any]

PAIRS = pl.Schema({"left": pl.String, "right": pl.String})
SCORED = pl.Schema({"left": pl.String, "right": pl.String, "similarity": pl.Float64})
CONTAINED = pl.Schema({"left": pl.String, "right": pl.String, "similarity": pl.Float64, "first": pl.Float64})


def text_shingles(text: str) -> set[str]:
    """The set of 3-grams; a shorter text is its own single shingle."""
    return {text[i : i + SIZE] for i in range(len(text) - SIZE + 1)} or {text}


def _hash_windows(texts: list[str], size: int) -> tuple[Array, Array]:
    """Hashes (uint64) of all windows of ``size`` characters, and each one's text (its index), in order."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, dtype=np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    count = max(len(codes) - size + 1, 0)
    mixed = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        mixed = (mixed ^ codes[offset : offset + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    whole = owner[:count] == owner[size - 1 : size - 1 + count]
    return mixed[whole], owner[:count][whole]


@dataclass(frozen=True, slots=True)
class MinHashIndex:
    """Indexed texts: ids, MinHash digests (one row per text), bands by row number, and rensa's index."""

    ids: pl.Series
    digests: Array
    bands: pl.DataFrame
    index: Any


def build_minhash_index(side: pl.DataFrame) -> MinHashIndex:
    """The index of a side's ``text``s, without those shorter than a shingle."""
    import rensa

    long = _drop_short_texts(side)
    # The index flags texts that are near *more* than one entry, so each text is inserted twice.
    index = rensa.RMinHashLSH(_AGREE / _PERMUTATIONS, _PERMUTATIONS, _BANDS)
    parts = [np.zeros((0, _PERMUTATIONS), dtype=np.uint32)]
    for start in range(0, len(long), _CHUNK):
        chunk = long["text"][start : start + _CHUNK].to_list()
        matrix = _minhash_matrix(*_hash_windows(chunk, SIZE), len(chunk))
        for copy in (0, 1):
            index.insert_matrix(matrix, start + copy * len(long))
        parts.append(_digest_array(matrix))
    digests = np.concatenate(parts)
    return MinHashIndex(long["id"], digests, _band_table(digests), index)


def find_minhash_candidates(left: pl.DataFrame, right: pl.DataFrame | MinHashIndex) -> pl.DataFrame:
    """Pairs (left, right) of ids whose ``text``s share a MinHash band and at least ``_AGREE`` permutations.
    Texts shorter than a shingle are never candidates.

    Reading digests from rensa is slow, so it is done only for texts that rensa flags.
    """
    other = right if isinstance(right, MinHashIndex) else build_minhash_index(right)
    candidates = [pl.DataFrame(schema=PAIRS)]
    for chunk in _drop_short_texts(left).select("id", "text").iter_slices(_CHUNK):
        hashes, owner = _hash_windows(chunk["text"].to_list(), SIZE)
        matrix = _minhash_matrix(hashes, owner, len(chunk))
        near = np.array(other.index.query_duplicate_flags_matrix(matrix), bool)
        kept, place = near[owner], np.cumsum(near) - 1
        digests = _digest_array(_minhash_matrix(hashes[kept], place[owner[kept]], int(near.sum())))
        shared = _band_table(digests).join(other.bands, on="band").select("place", "place_right").unique()
        one, two = shared.sort("place", "place_right").to_numpy().T
        alike = (digests[one] == other.digests[two]).sum(axis=1) >= _AGREE
        ids = chunk["id"].filter(pl.Series(near))
        sides = {"left": ids.gather(one[alike]), "right": other.ids.gather(two[alike])}
        candidates.append(pl.DataFrame(sides, schema=PAIRS))
    return pl.concat(candidates)


def _drop_short_texts(side: pl.DataFrame) -> pl.DataFrame:
    return side.filter(pl.col("text").str.len_chars() >= SIZE)


def _minhash_matrix(hashes: Array, owner: Array, count: int) -> Any:
    """rensa's digests of ``count`` texts from their shingles' hashes."""
    import rensa

    ends = np.searchsorted(owner, np.arange(count + 1)).astype(np.uint64)
    return rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, _PERMUTATIONS, _SEED)


def _digest_array(matrix: Any) -> Array:
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, _PERMUTATIONS)


def _band_table(digests: Array) -> pl.DataFrame:
    """(place, band): one row per text and MinHash band. Places (row numbers) join faster than ids."""
    rows = _PERMUTATIONS // _BANDS
    generator = np.random.default_rng(_SEED)
    multipliers = generator.integers(1, 2**63, size=(_BANDS, rows), dtype=np.uint64) | np.uint64(1)
    # Salts, so that equal rows in two bands give different keys.
    salts = np.arange(_BANDS, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
    parts = digests.reshape(-1, _BANDS, rows).astype(np.uint64)
    band = ((parts * multipliers).sum(axis=2, dtype=np.uint64) ^ salts).ravel()
    return pl.DataFrame({"place": np.repeat(np.arange(len(digests), dtype=np.uint32), _BANDS), "band": band})


def score_jaccard(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the exact Jaccard similarity of their texts' 3-gram sets."""
    left_texts = _values_by_id(left, "text", pairs["left"])
    right_texts = _values_by_id(right, "text", pairs["right"])
    scored, last, target = [], None, set[str]()
    for left_id, right_id in pairs.sort("right", maintain_order=True).iter_rows():
        if right_id != last:  # only one right set in memory at a time
            last, target = right_id, text_shingles(right_texts[right_id])
        other = text_shingles(left_texts[left_id])
        common = len(target & other)
        scored.append((left_id, right_id, common / (len(target) + len(other) - common)))
    return pl.DataFrame(scored, schema=SCORED, orient="row")


def _values_by_id(side: pl.DataFrame, column: str, ids: pl.Series) -> dict[str, Any]:
    return dict(side.join(ids.to_frame("id"), on="id", how="semi").select("id", column).iter_rows())


@dataclass(frozen=True, slots=True)
class Anchors:
    """The windows by which contained items are found: the rarest of each eighth of an item's text, and of
    each quarter of its first part."""

    table: pl.DataFrame  # window (uint64), right (id), first (whether it is of the first part)
    needed: pl.DataFrame  # right, and how many anchors a text must have: whole, first
    coarse: Array  # bool by a window's upper bits: False = no anchor has them


def build_anchors(right: pl.DataFrame, first_chars: int = 0) -> Anchors:
    """The anchors of items; their list column ``parts`` has the strings to find in a text, in any order.

    A first part of fewer than ``first_chars`` characters is only searched for together with the rest. Windows
    that many items share (from stems such as "which of these is right") are not used if an item has others.
    """
    parts = right.select("id", "parts").explode("parts").drop_nulls()
    parts = parts.with_columns((pl.int_range(pl.len()).over("id") == 0).alias("first"))
    hashes, owner = _hash_windows(parts["parts"].to_list(), _ANCHOR)
    windows = pl.DataFrame(
        {"window": hashes, "right": parts["id"].gather(owner), "first": parts["first"].gather(owner)}
    )
    windows = windows.with_columns(pl.len().over("window").alias("frequency"))
    whole = _rarest_windows(windows, _WHOLE_ANCHORS).with_columns(pl.lit(False).alias("first"))
    long = windows.filter(pl.col("first") & (pl.col("first").sum().over("right") > first_chars - _ANCHOR))
    first = _rarest_windows(long, _FIRST_ANCHORS)
    table = pl.concat([whole, first]).select("window", "right", "first").unique(maintain_order=True)
    counts = table.group_by("right", maintain_order=True).agg(
        pl.min_horizontal((~pl.col("first")).sum(), pl.lit(_WHOLE_NEEDED)).alias("whole"),
        pl.min_horizontal(pl.col("first").sum(), pl.lit(_FIRST_NEEDED)).alias("first"),
    )
    coarse = np.zeros(1 << _COARSE_BITS, dtype=bool)
    coarse[table["window"].to_numpy() >> np.uint64(64 - _COARSE_BITS)] = True
    return Anchors(table, counts, coarse)


def _rarest_windows(windows: pl.DataFrame, places: int) -> pl.DataFrame:
    place = pl.int_range(pl.len()).over("right") * places // pl.len().over("right")
    ranked = windows.with_columns(place.alias("place")).sort("frequency", maintain_order=True)
    chosen = ranked.unique(["right", "place"], keep="first", maintain_order=True)
    rank = pl.int_range(pl.len()).over("right")
    return chosen.filter((pl.col("frequency") <= _COMMON) | (rank == 0))


def find_anchored_candidates(left: pl.DataFrame, right: pl.DataFrame | Anchors) -> pl.DataFrame:
    """Pairs (left, right) whose left ``text`` has enough of the right item's anchors: three of the whole, or
    two of its first part. A verbatim quote has all of them; the margin allows for changes.
    """
    anchors = right if isinstance(right, Anchors) else build_anchors(right)
    candidates = [pl.DataFrame(schema=PAIRS)]
    for chunk in left.select("id", "text").iter_slices(_CHUNK):
        hashes, owner = _hash_windows(chunk["text"].to_list(), _ANCHOR)
        possible = anchors.coarse[hashes >> np.uint64(64 - _COARSE_BITS)]
        windows = pl.DataFrame({"window": hashes[possible], "place": owner[possible]}).unique()
        matches = windows.join(anchors.table, on="window").group_by("place", "right")
        counts = matches.agg((~pl.col("first")).sum().alias("whole"), pl.col("first").sum().alias("first"))
        enough = counts.join(anchors.needed, on="right", suffix="_needed").filter(
            (pl.col("whole") >= pl.col("whole_needed"))
            | ((pl.col("first_needed") > 0) & (pl.col("first") >= pl.col("first_needed")))
        )
        enough = enough.sort("place", "right")
        candidates.append(enough.select(chunk["id"].gather(enough["place"]).alias("left"), "right"))
    return pl.concat(candidates)


def score_containment(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """The pairs with ``similarity``, the share of the right parts' 3-grams that the left text contains, and
    ``first``, that of the first part. A part shorter than a shingle counts if it occurs in the text.
    """
    texts = _values_by_id(left, "text", pairs["left"])
    parts = _values_by_id(right, "parts", pairs["right"])
    scored = []
    for (left_id,), group in pairs.group_by("left", maintain_order=True):
        text = texts[str(left_id)]
        text_grams = text_shingles(text)
        for right_id in group["right"]:
            shared, totals = [], []
            for part in parts[right_id]:
                grams = text_shingles(part)
                shared.append(len(grams & text_grams) if len(part) >= SIZE else int(part in text))
                totals.append(len(grams))
            scored.append((left_id, right_id, sum(shared) / sum(totals), shared[0] / totals[0]))
    return pl.DataFrame(scored, schema=CONTAINED, orient="row")
