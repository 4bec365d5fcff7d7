"""A mixture of training data: weighted sources, drawn with a seed.

In: ``SOURCE[:weight]`` per source, a file, folder, pattern or ``owner/name[:config[:split]][@revision]``.
Out: the drawn rows, source after source, and each source's share. A source's weight says how often its rows
are taken: 1 (default) takes each once, 0.3 a seeded 30 % of them, 2.5 each twice and half of them a third
time. Knows nothing of tokens or of the rows' contents.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.data.bad_rows import BadRowPolicy, BadRows
from kmmlu_fast.data.hub_rows import parse_hub_source, resolve_hub_revision
from kmmlu_fast.data.row_files import source_files
from kmmlu_fast.data.training_rows import AnswerCoding, TrainingRow, read_training_rows


@dataclass(frozen=True, slots=True)
class MixtureSource:
    """One source and how often its rows are taken."""

    source: str
    weight: float = 1.0


@dataclass(slots=True, kw_only=True)
class MixtureShare:
    """What one source contributed."""

    source: str
    weight: float
    rows: int = 0  # rows of the source
    taken: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0  # rows with the content of an earlier row of any source
    unread: Counter[str] = field(default_factory=Counter)  # columns that were not read: how many rows
    left_out: Counter[str] = field(default_factory=Counter)  # bad rows by reason, with --bad-rows drop
    revision: str | None = None  # of a source on the hub: the commit that was read


def parse_mixture_source(text: str) -> MixtureSource:
    """``more.jsonl:0.3`` or ``owner/name:config``; ConfigError for an invalid weight, or a source that is
    neither files nor a hub id."""
    head, colon, tail = text.rpartition(":")
    weight = 1.0
    source = text
    if colon and head and not Path(text).exists():
        hub = parse_hub_source(text)
        try:
            weight = float(tail)
        except ValueError:
            if hub is None:
                raise ConfigError(
                    f"--data {text!r}: {tail!r} is not a weight; write FILE:0.3, or FILE"
                ) from None
        else:
            source = head
    if not 0 < weight <= 100:
        raise ConfigError(
            f"--data {text!r}: weight {weight:g} is not allowed; it must be above 0 and at most 100"
        )
    if parse_hub_source(source) is None:
        try:
            source_files(source)
        except DataError as error:
            raise ConfigError(f"--data {error}") from error
    return MixtureSource(source, weight)


def draw_count(weight: float, seed: int, source: str, number: int) -> int:
    """How often a row is taken: the weight's whole part, plus one if the row's hash is below its fraction.

    The hash depends only on the seed, the source's name and the row's number, so the draw needs one pass and
    appended rows do not change it.
    """
    whole = int(weight)
    digest = hashlib.blake2b(f"{seed}\x1f{Path(source).name}\x1f{number}".encode(), digest_size=8).digest()
    return whole + (int.from_bytes(digest, "big") / 2**64 < weight - whole)


def read_mixture(
    parts: Sequence[MixtureSource],
    seed: int,
    columns: Mapping[str, str] | None = None,
    *,
    answer_coding: AnswerCoding = "auto",
    bad_rows: BadRowPolicy = "refuse",
) -> tuple[list[TrainingRow], list[MixtureShare]]:
    """The drawn rows, and each source's share. DataError for rows that cannot be read, unless ``bad_rows``
    says to leave them out."""
    shares = [MixtureShare(source=part.source, weight=part.weight) for part in parts]
    rows = iter_mixture(parts, seed, shares, columns, answer_coding=answer_coding, bad_rows=bad_rows)
    with report_wait("reading rows", lambda: f"{sum(share.rows for share in shares):,} rows"):
        return list(rows), shares


def iter_mixture(
    parts: Sequence[MixtureSource],
    seed: int,
    shares: Sequence[MixtureShare],
    columns: Mapping[str, str] | None = None,
    *,
    answer_coding: AnswerCoding = "auto",
    bad_rows: BadRowPolicy = "refuse",
) -> Iterator[TrainingRow]:
    """The drawn rows as a stream, which fills in ``shares``."""
    seen: set[bytes] = set()
    for part, share in zip(parts, shares, strict=True):
        bad = BadRows(source=part.source, policy=bad_rows)
        rows = read_training_rows(
            part.source, columns, answer_coding=answer_coding, bad_rows=bad, unread=share.unread
        )
        for row in rows:
            share.rows += 1
            share.forms[row.form] += 1
            digest = row.digest
            share.duplicates += digest in seen
            seen.add(digest)
            for _ in range(draw_count(part.weight, seed, row.source, row.number)):
                share.taken += 1
                yield row
        share.left_out = bad.reasons
        hub = parse_hub_source(part.source)
        share.revision = resolve_hub_revision(hub) if hub else None


def mixture_lines(shares: Sequence[MixtureShare]) -> list[str]:
    """The shares as a text table: source, form, rows, weight, taken, share of all taken, duplicates."""
    total = max(1, sum(share.taken for share in shares))
    header = ("source", "form", "rows", "weight", "taken", "share", "duplicates")
    body = [
        (
            share.source,
            "+".join(share.forms),
            f"{share.rows:,}",
            f"{share.weight:g}",
            f"{share.taken:,}",
            f"{share.taken / total:.1%}",
            f"{share.duplicates:,}",
        )
        for share in shares
    ]
    table = [header, *body]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(texts + numbers))
    for share in shares:
        if share.unread:
            columns = ", ".join(f"{name} ({count:,} rows)" for name, count in share.unread.most_common())
            lines.append(f"{share.source}: not read: {columns}")
    return lines
