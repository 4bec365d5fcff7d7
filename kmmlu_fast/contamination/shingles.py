"""Which texts may be alike: MinHash candidates, anchors of contained texts, and the exact similarity that
judges them.

In: frames with an ``id`` and texts that are already normalised. Out: frames of candidate pairs (left, right),
and pairs with their true similarity: what is reported was never estimated. Knows nothing of KMMLU.

MinHash is rensa's (kept, MIT, no dependencies): 128 permutations, 32 bands of 4 rows. A pair whose Jaccard
similarity is s shares a band with probability 1 - (1 - s^4)^32: 0.99985 at 0.7, 1 - 5e-8 at 0.8. Nine of ten
pairs that share one are alike by a fifth or less: those that agree in fewer than 60 permutations are left
out, where one of 0.7 agrees in 90, and in fewer than 60 with probability 2e-8 (binomial).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

SIZE = 3  # characters of a shingle
_ANCHOR = 5  # characters of the windows that find contained texts
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 42
_AGREE = 60  # permutations of two texts that may be alike
_WHOLE_ANCHORS, _WHOLE_NEEDED = 8, 3
_FIRST_ANCHORS, _FIRST_NEEDED = 4, 2
_COARSE_BITS = 24
_COMMON = 16  # items that share a window
_CHUNK = 16_384  # texts at a time: bounds memory

Array = np.ndarray[Any, Any]

PAIRS = pl.Schema({"left": pl.String, "right": pl.String})
SCORED = pl.Schema({"left": pl.String, "right": pl.String, "similarity": pl.Float64})
CONTAINED = pl.Schema({"left": pl.String, "right": pl.String, "similarity": pl.Float64, "first": pl.Float64})


def text_shingles(text: str) -> set[str]:
    """The set of 3-grams; a shorter text is its own only shingle."""
    return {text[i : i + SIZE] for i in range(len(text) - SIZE + 1)} or {text}


def _hash_windows(texts: list[str], size: int) -> tuple[Array, Array]:
    """Hashes (uint64) of all windows of ``size`` characters, and the index into ``texts`` of
    each; texts in order.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
        np.uint64
    )
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
    """Texts made ready to be found: ids, MinHash digests (a row each), bands by place among these, and
    rensa's index of them."""

    ids: pl.Series
    digests: Array
    bands: pl.DataFrame
    index: Any


def build_minhash_index(side: pl.DataFrame) -> MinHashIndex:
    """A side's ``text``s; those shorter than a shingle are left out."""
    import rensa

    long = _drop_short_texts(side)
    # The index tells of which texts *more* than one is near, so that each is in it twice.
    index = rensa.RMinHashLSH(_AGREE / _PERMUTATIONS, _PERMUTATIONS, _BANDS)
    found = [np.zeros((0, _PERMUTATIONS), dtype=np.uint32)]
    for start in range(0, len(long), _CHUNK):
        chunk = long["text"][start : start + _CHUNK].to_list()
        matrix = _minhash_matrix(*_hash_windows(chunk, SIZE), len(chunk))
        for copy in (0, 1):
            index.insert_matrix(matrix, start + copy * len(long))
        found.append(_digest_array(matrix))
    digests = np.concatenate(found)
    return MinHashIndex(long["id"], digests, _band_table(digests), index)


def find_minhash_candidates(left: pl.DataFrame, right: pl.DataFrame | MinHashIndex) -> pl.DataFrame:
    """Pairs (left, right) of ids whose ``text`` shares a MinHash band, and nearly half of the permutations
    (``_AGREE``). Texts shorter than a shingle are never candidates.

    Digests are taken out of rensa, number by number, of those texts alone that it says something is near to.
    """
    other = right if isinstance(right, MinHashIndex) else build_minhash_index(right)
    found = [pl.DataFrame(schema=PAIRS)]
    for chunk in _drop_short_texts(left).select("id", "text").iter_slices(_CHUNK):
        hashes, owner = _hash_windows(chunk["text"].to_list(), SIZE)
        near = np.array(
            other.index.query_duplicate_flags_matrix(_minhash_matrix(hashes, owner, len(chunk))), bool
        )
        kept, place = near[owner], np.cumsum(near) - 1
        digests = _digest_array(_minhash_matrix(hashes[kept], place[owner[kept]], int(near.sum())))
        shared = _band_table(digests).join(other.bands, on="band").select("place", "place_right").unique()
        one, two = shared.sort("place", "place_right").to_numpy().T
        alike = (digests[one] == other.digests[two]).sum(axis=1) >= _AGREE
        ids = chunk["id"].filter(pl.Series(near))
        sides = {"left": ids.gather(one[alike]), "right": other.ids.gather(two[alike])}
        found.append(pl.DataFrame(sides, schema=PAIRS))
    return pl.concat(found)


def _drop_short_texts(side: pl.DataFrame) -> pl.DataFrame:
    return side.filter(pl.col("text").str.len_chars() >= SIZE)


def _minhash_matrix(hashes: Array, owner: Array, count: int) -> Any:
    """rensa's digests of ``count`` texts, of whose shingles these are the hashes."""
    import rensa

    ends = np.searchsorted(owner, np.arange(count + 1)).astype(np.uint64)
    return rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, _PERMUTATIONS, _SEED)


def _digest_array(matrix: Any) -> Array:
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, _PERMUTATIONS)


def _band_table(digests: Array) -> pl.DataFrame:
    """(place, band): one row for each text, by its place, and MinHash band. Places, not ids: a million rows
    are joined by them.
    """
    rows = _PERMUTATIONS // _BANDS
    multipliers = np.random.default_rng(_SEED).integers(
        1, 2**63, size=(_BANDS, rows), dtype=np.uint64
    ) | np.uint64(1)
    number = np.arange(_BANDS, dtype=np.uint64) * np.uint64(
        0xD1B54A32D192ED03
    )  # the same rows in two bands are two keys
    parts = digests.reshape(-1, _BANDS, rows).astype(np.uint64)
    band = ((parts * multipliers).sum(axis=2, dtype=np.uint64) ^ number).ravel()
    return pl.DataFrame({"place": np.repeat(np.arange(len(digests), dtype=np.uint32), _BANDS), "band": band})


def score_jaccard(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the true Jaccard similarity of their texts' 3-gram sets."""
    texts = _texts_by_id(pairs, left, right)
    scored, last, target = [], None, set[str]()
    for left_id, right_id in pairs.sort("right", maintain_order=True).iter_rows():
        if right_id != last:  # the sets of one right text at a time: memory
            last, target = right_id, text_shingles(texts[1][right_id])
        other = text_shingles(texts[0][left_id])
        common = len(target & other)
        scored.append((left_id, right_id, common / (len(target) + len(other) - common)))
    return pl.DataFrame(scored, schema=SCORED, orient="row")


def _texts_by_id(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> list[dict[str, str]]:
    sides = ((left, "left"), (right, "right"))
    return [
        dict(side.join(pairs, left_on="id", right_on=name, how="semi").select("id", "text").iter_rows())
        for side, name in sides
    ]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Where contained items are looked for: of each item the rarest window of every eighth of its text, and
    of every quarter of its first part. ``table`` has window (uint64), right (id), first (is it of the first
    part); ``needed`` how many of each must be held.
    """

    table: pl.DataFrame
    needed: pl.DataFrame  # right, whole, first
    coarse: Array  # bool by the upper bits of a window: False = no anchor has them


def build_anchors(right: pl.DataFrame, first_chars: int = 0) -> Anchors:
    """The anchors of items whose list column ``parts`` holds strings that are expected in a text, in any
    order.

    A first part of fewer than ``first_chars`` characters is looked for only together with the rest. Windows
    that many items have (they come from wordings such as "which of these is right") are no anchors where an
    item has others.
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
    """Pairs (left, right) whose left ``text`` holds enough of the right text's anchors: three of the whole,
    or two of its first part.

    An item that is quoted as it is has all of them; the margin is for what was changed in it.
    """
    anchors = right if isinstance(right, Anchors) else build_anchors(right)
    found = [pl.DataFrame(schema=PAIRS)]
    for chunk in left.select("id", "text").iter_slices(_CHUNK):
        hashes, owner = _hash_windows(chunk["text"].to_list(), _ANCHOR)
        seen = anchors.coarse[hashes >> np.uint64(64 - _COARSE_BITS)]
        held = pl.DataFrame({"window": hashes[seen], "place": owner[seen]}).unique()
        hits = (
            held.join(anchors.table, on="window")
            .group_by("place", "right", maintain_order=False)
            .agg((~pl.col("first")).sum().alias("whole"), pl.col("first").sum().alias("first"))
        )
        wanted = hits.join(anchors.needed, on="right", suffix="_needed").filter(
            (pl.col("whole") >= pl.col("whole_needed"))
            | ((pl.col("first_needed") > 0) & (pl.col("first") >= pl.col("first_needed")))
        )
        some = wanted.sort("place", "right")
        found.append(some.select(chunk["id"].gather(some["place"]).alias("left"), "right"))
    return pl.concat(found)


def score_containment(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """The pairs with ``similarity`` = the share of the right parts' 3-grams that the left text holds, and the
    first part's own (``first``); a part shorter than a shingle is held where it occurs.
    """
    texts = dict(left.join(pairs, left_on="id", right_on="left", how="semi").select("id", "text").iter_rows())
    parts = dict(
        right.join(pairs, left_on="id", right_on="right", how="semi").select("id", "parts").iter_rows()
    )
    scored = []
    for (left_id,), group in pairs.group_by("left", maintain_order=True):
        text = texts[str(left_id)]
        held = text_shingles(text)
        for right_id in group["right"]:
            counts = [
                (len(s & held) if len(p) >= SIZE else int(p in text), len(s))
                for p in parts[right_id]
                for s in [text_shingles(p)]
            ]
            share = sum(found for found, _ in counts) / sum(total for _, total in counts)
            scored.append((left_id, right_id, share, counts[0][0] / counts[0][1]))
    return pl.DataFrame(scored, schema=CONTAINED, orient="row")
