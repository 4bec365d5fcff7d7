"""Which texts may be alike: MinHash candidates, anchors of contained texts, and the exact similarity that judges them.

In: frames with an ``id`` and texts that are already normalised. Out: frames of candidate pairs (left, right), and pairs with
their true similarity: what is reported was never estimated. Knows nothing of KMMLU.

MinHash is rensa's (kept, MIT, no dependencies): 128 permutations, 32 bands of 4 rows. A pair whose Jaccard similarity is s
becomes a candidate with probability 1 - (1 - s^4)^32: 0.99985 at 0.7, 1 - 5e-8 at 0.8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

SIZE = 3  # characters of a shingle
_ANCHOR = 5  # characters of the windows that find contained texts
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 42
_CHUNK = 16_384  # texts at a time: bounds memory

Array = np.ndarray[Any, Any]

PAIRS = pl.Schema({"left": pl.String, "right": pl.String})
SCORED = pl.Schema({"left": pl.String, "right": pl.String, "similarity": pl.Float64})
CONTAINED = pl.Schema({"left": pl.String, "right": pl.String, "similarity": pl.Float64, "first": pl.Float64})


def shingles(text: str) -> set[str]:
    """The set of 3-grams; a shorter text is its own only shingle."""
    return {text[i : i + SIZE] for i in range(len(text) - SIZE + 1)} or {text}


def _windows(texts: list[str], size: int) -> tuple[Array, Array]:
    """Hashes (uint64) of all windows of ``size`` characters, and the index into ``texts`` of each; texts in order."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    count = max(len(codes) - size + 1, 0)
    mixed = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        mixed = (mixed ^ codes[offset : offset + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    whole = owner[:count] == owner[size - 1 : size - 1 + count]
    return mixed[whole], owner[:count][whole]


def _bands(texts: pl.Series) -> pl.DataFrame:
    """(place, band): one row for each text, by its place, and MinHash band. Places, not ids: five million rows are joined by them."""
    import rensa

    rows = _PERMUTATIONS // _BANDS
    multipliers = np.random.default_rng(_SEED).integers(1, 2**63, size=(_BANDS, rows), dtype=np.uint64) | np.uint64(1)
    number = np.arange(_BANDS, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)  # the same rows in two bands are two keys
    parts = [np.zeros(0, dtype=np.uint64)]
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        hashes, owner = _windows(chunk.to_list(), SIZE)
        ends = np.searchsorted(owner, np.arange(len(chunk) + 1)).astype(np.uint64)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, _PERMUTATIONS, _SEED)
        digests = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(chunk), _BANDS, rows)
        parts.append(((digests * multipliers).sum(axis=2, dtype=np.uint64) ^ number).ravel())
    place = np.repeat(np.arange(len(texts), dtype=np.uint32), _BANDS)
    return pl.DataFrame({"place": place, "band": np.concatenate(parts)})


def candidates(left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """Pairs (left, right) of ids whose ``text`` shares a MinHash band. Texts shorter than a shingle are never candidates."""
    sides = [side.filter(pl.col("text").str.len_chars() >= SIZE) for side in (left, right)]
    joined = _bands(sides[0]["text"]).join(_bands(sides[1]["text"]), on="band")
    found = joined.select("place", "place_right").unique().sort("place", "place_right")
    return pl.DataFrame(
        {"left": sides[0]["id"].gather(found["place"]), "right": sides[1]["id"].gather(found["place_right"])},
        schema=PAIRS,
    )


def jaccard(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the true Jaccard similarity of their texts' 3-gram sets."""
    texts = _texts(pairs, left, right)
    scored, last, target = [], None, set[str]()
    for left_id, right_id in pairs.sort("right", maintain_order=True).iter_rows():
        if right_id != last:  # the sets of one right text at a time: memory
            last, target = right_id, shingles(texts[1][right_id])
        other = shingles(texts[0][left_id])
        common = len(target & other)
        scored.append((left_id, right_id, common / (len(target) + len(other) - common)))
    return pl.DataFrame(scored, schema=SCORED, orient="row")


def _texts(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> list[dict[str, str]]:
    sides = ((left, "left"), (right, "right"))
    return [dict(side.join(pairs, left_on="id", right_on=name, how="semi").select("id", "text").iter_rows()) for side, name in sides]


def anchored(left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """Pairs (left, right) whose left ``text`` holds one of the right text's anchors: the rarest window of each quarter.

    ``right`` has a list column ``parts`` whose strings are expected in the left text, in any order and with anything between.
    """
    parts = right.select("id", "parts").explode("parts").drop_nulls()
    hashes, owner = _windows(parts["parts"].to_list(), _ANCHOR)
    table = pl.DataFrame({"window": hashes, "id": parts["id"].gather(owner)})
    place = pl.int_range(pl.len()).over("id") * 4 // pl.len().over("id")
    spread = table.with_columns(place.alias("quarter"), pl.len().over("window").alias("frequency"))
    anchors = spread.sort("frequency", maintain_order=True).unique(["id", "quarter"], keep="first", maintain_order=True)
    anchors = anchors.select("window", pl.col("id").alias("right"))
    found = [pl.DataFrame(schema=PAIRS)]
    for chunk in left.select("id", "text").iter_slices(_CHUNK):
        hashes, owner = _windows(chunk["text"].to_list(), _ANCHOR)
        seen = np.isin(hashes, anchors["window"].to_numpy())
        held = pl.DataFrame({"window": hashes[seen], "left": chunk["id"].gather(owner[seen])})
        found.append(held.join(anchors, on="window").select("left", "right").unique(maintain_order=True))
    return pl.concat(found)


def containment(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """The pairs with ``similarity`` = the share of the right parts' 3-grams that the left text holds, and the first part's own
    (``first``); a part shorter than a shingle is held where it occurs."""
    texts = dict(left.join(pairs, left_on="id", right_on="left", how="semi").select("id", "text").iter_rows())
    parts = dict(right.join(pairs, left_on="id", right_on="right", how="semi").select("id", "parts").iter_rows())
    scored = []
    for (left_id,), group in pairs.group_by("left", maintain_order=True):
        text = texts[str(left_id)]
        held = shingles(text)
        for right_id in group["right"]:
            counts = [(len(s & held) if len(p) >= SIZE else int(p in text), len(s)) for p in parts[right_id] for s in [shingles(p)]]
            share = sum(found for found, _ in counts) / sum(total for _, total in counts)
            scored.append((left_id, right_id, share, counts[0][0] / counts[0][1]))
    return pl.DataFrame(scored, schema=CONTAINED, orient="row")
