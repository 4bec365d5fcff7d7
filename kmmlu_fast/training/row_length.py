"""Rows that are too long, and rows without a token to learn from.

In: encoded rows, a limit, a policy, and who can shorten a row. Out: rows within the limit and a report on the
others, or a TrainError that names a row. Knows nothing of tokenizers or settings.

    truncate   whole exchanges leave a conversation from its front; a document is split; what still does not
               fit is left out. An answer is never cut
    drop       left out
    refuse     TrainError
    cut        tokens leave a question's beginning, or a conversation's end: the only rule that cuts answers
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.training.encoded import MASKED, EncodedRow

ShortenRow = Callable[[EncodedRow], list[EncodedRow]]  # the rows that stand for a long one; none: left out


def fit_length(
    rows: list[EncodedRow], limit: int, policy: str, bos_id: int | None, shorten: ShortenRow | None = None
) -> tuple[list[EncodedRow], dict[str, Any]]:
    """Rows within ``limit`` tokens, and a report on the others (counts and ids, for the log and the card)."""
    fitting: list[EncodedRow] = []
    long: list[str] = []
    left_out: list[str] = []
    for row in rows:
        if len(row.input_ids) <= limit:
            fitting.append(row)
            continue
        long.append(row.question_id)
        if policy == "refuse":
            raise TrainError(
                f"row {row.question_id} has {len(row.input_ids)} tokens, more than --max-seq-length {limit}: "
                "raise it, or give --too-long truncate or drop"
            )
        shorter: list[EncodedRow] = []
        if policy == "cut":
            shorter = _cut_row(row, limit, bos_id)
        elif policy == "truncate" and shorten is not None:
            shorter = shorten(row)
        fitting += shorter
        if not shorter:
            left_out.append(row.question_id)
    report = {
        "policy": policy,
        "max_seq_length": limit,
        "rows_too_long": len(long),
        "rows_left_out": len(left_out),
        "question_ids": long,
    }
    return fitting, report


def describe_too_long(report: dict[str, Any], what: str = "rows") -> str:
    """What was done with the rows that are too long: one sentence, "" if there are none."""
    count, out, rows = report["rows_too_long"], report["rows_left_out"], report["rows"]
    if not count:
        return ""
    shortened = {"cut": "cut"}.get(report["policy"], "shortened by whole exchanges from the front")
    parts = [f"{count - out} {shortened}"] if count > out else []
    parts += [f"{out} left out"] if out else []
    return (
        f"{count} of {rows} {what} are over --max-seq-length {report['max_seq_length']}: {', '.join(parts)}"
        f" ({', '.join(report['question_ids'][:5])}{', ...' if count > 5 else ''})"
    )


def _cut_row(row: EncodedRow, limit: int, bos_id: int | None) -> list[EncodedRow]:
    """A question without tokens of its prompt's beginning (after BOS), then without its answer's end; a
    conversation without its end, so that the rest is still a conversation."""
    excess = len(row.input_ids) - limit
    keep = 1 if bos_id is not None and row.input_ids[0] == bos_id else 0
    from_front = 0 if row.mask is not None else max(0, min(excess, row.prompt_tokens - keep - 1))
    ids = row.input_ids[:keep] + row.input_ids[keep + from_front :]
    mask = None if row.mask is None else row.mask[:keep] + row.mask[keep + from_front :]
    cut = replace(
        row,
        input_ids=ids[:limit],
        mask=None if mask is None else mask[:limit],
        prompt_tokens=row.prompt_tokens - from_front,
        cut_tokens=excess,
    )
    return [cut] if any(label != MASKED for label in cut.labels) else []


def check_trainable(rows: Iterable[EncodedRow]) -> None:
    """TrainError if a row has no token to learn from: it would silently contribute nothing to the loss."""
    masked = [row.question_id for row in rows if all(label == MASKED for label in row.labels)]
    if masked:
        more = f" and {len(masked) - 5} more" if len(masked) > 5 else ""
        raise TrainError(
            f"{len(masked)} rows have every token masked, so there is no response to learn:"
            f" {', '.join(masked[:5])}{more}; check --max-seq-length and the data file"
        )
