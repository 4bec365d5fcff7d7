"""Rows that are too long, and rows without a token to learn from.

In: encoded rows, a limit, a policy. Out: rows within the limit and a report on the others, or a TrainError
that names a row. Knows nothing of tokenizers or settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.training.encoded import MASKED, EncodedRow


def fit_length(
    rows: list[EncodedRow], limit: int, policy: str, bos_id: int | None
) -> tuple[list[EncodedRow], dict[str, Any]]:
    """Rows within ``limit`` tokens, and a report on the others (counts and ids, for the log and the card).

    A question is cut at the prompt's beginning, after BOS, so that the options and the response stay whole; a
    conversation is cut at its end, so that the rest is still a conversation.
    """
    fitting: list[EncodedRow] = []
    long: list[str] = []
    for row in rows:
        excess = len(row.input_ids) - limit
        if excess <= 0:
            fitting.append(row)
            continue
        long.append(row.question_id)
        if policy == "refuse":
            raise TrainError(
                f"row {row.question_id} has {len(row.input_ids)} tokens, more than --max-seq-length {limit}: "
                "raise it, or give --too-long truncate or drop"
            )
        if policy == "drop":
            continue
        if row.mask is not None:
            if not any(row.mask[:limit]):
                raise TrainError(
                    f"{row.question_id}: --max-seq-length {limit} leaves nothing of the assistant's turns "
                    f"(the first begins at token {row.prompt_tokens}); raise it, or give --too-long drop"
                )
            fitting.append(
                replace(row, input_ids=row.input_ids[:limit], mask=row.mask[:limit], cut_tokens=excess)
            )
            continue
        keep = 1 if bos_id is not None and row.input_ids[0] == bos_id else 0
        if row.prompt_tokens - excess <= keep:
            raise TrainError(
                f"row {row.question_id}: --max-seq-length {limit} leaves nothing of its prompt"
                f" ({row.prompt_tokens} tokens and {len(row.input_ids) - row.prompt_tokens} of response);"
                " raise it, or give --too-long drop"
            )
        ids = row.input_ids[:keep] + row.input_ids[keep + excess :]
        fitting.append(
            replace(row, input_ids=ids, prompt_tokens=row.prompt_tokens - excess, cut_tokens=excess)
        )
    report = {"policy": policy, "max_seq_length": limit, "rows_too_long": len(long), "question_ids": long}
    return fitting, report


def check_trainable(rows: Iterable[EncodedRow]) -> None:
    """TrainError if a row has no token to learn from: it would silently contribute nothing to the loss."""
    masked = [row.question_id for row in rows if all(label == MASKED for label in row.labels)]
    if masked:
        more = f" and {len(masked) - 5} more" if len(masked) > 5 else ""
        raise TrainError(
            f"{len(masked)} rows have every token masked, so there is no response to learn:"
            f" {', '.join(masked[:5])}{more}; check --max-seq-length and the data file"
        )
