"""Shorter rows in place of one that is too long: fewer exchanges of a conversation, pieces of a document.

In: the rows as they were read, and how a row is encoded. Out: a function from an encoded row to the rows that
stand for it; none if even the last exchange does not fit. Knows nothing of templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from kmmlu_fast.data.chat_turns import Turn, learn_last_turn_only
from kmmlu_fast.data.training_rows import TrainingRow
from kmmlu_fast.training.encoded import EncodedRow
from kmmlu_fast.training.row_length import ShortenRow

_TURN = re.compile(r"(.*) turn (\d+)")


def make_shortener(
    rows: Sequence[object], limit: int, encode: Callable[[TrainingRow], list[EncodedRow]]
) -> ShortenRow:
    """The function that ``fit_length`` asks for shorter rows."""
    sources = {row.where: row for row in rows if isinstance(row, TrainingRow) and row.item is None}

    def shorten(encoded: EncodedRow) -> list[EncodedRow]:
        split = _TURN.fullmatch(encoded.question_id)
        row = sources.get(encoded.question_id)
        if row is None and split is not None:
            row = sources.get(split[1])
            if row is not None:
                row = replace(row, turns=learn_last_turn_only(row.turns[: int(split[2])]))
        if row is None:
            return []
        if row.document is not None:
            return split_document(encoded, limit)
        return _drop_exchanges(encoded, row, limit, encode)

    return shorten


def _drop_exchanges(
    encoded: EncodedRow, row: TrainingRow, limit: int, encode: Callable[[TrainingRow], list[EncodedRow]]
) -> list[EncodedRow]:
    """The row with as few exchanges dropped from its front as make it fit: one row, or none."""
    starts = [place for place, turn in enumerate(row.turns) if turn.role == "user"]
    found: list[EncodedRow] = []
    low, high = 1, len(starts) - 1
    while low <= high:
        middle = (low + high) // 2
        turns = drop_first_exchanges(row.turns, middle)
        learned = any(turn.role == "assistant" and turn.trained for turn in turns)
        pieces = encode(replace(row, turns=turns)) if learned else []
        if len(pieces) > 1:  # the template rewrites earlier turns: this piece is about the last one
            pieces = encode(replace(row, turns=learn_last_turn_only(turns)))
        if not pieces:
            high = middle - 1
        elif len(pieces) == 1 and len(pieces[0].input_ids) <= limit:
            piece = replace(pieces[0], question_id=encoded.question_id)
            found = [replace(piece, cut_tokens=len(encoded.input_ids) - len(piece.input_ids))]
            high = middle - 1
        else:
            low = middle + 1
    return found


def drop_first_exchanges(turns: Sequence[Turn], count: int) -> tuple[Turn, ...]:
    """The turns without the first ``count`` exchanges; a system turn stays."""
    head = tuple(turns[:1]) if turns[0].role == "system" else ()
    starts = [place for place, turn in enumerate(turns) if turn.role == "user"]
    return (*head, *turns[starts[count] :])


def split_document(encoded: EncodedRow, limit: int) -> list[EncodedRow]:
    """Consecutive pieces of a document. Each begins with the last token of the one before, so that every
    token but the first is learned once."""
    pieces: list[EncodedRow] = []
    ids = encoded.input_ids
    for number, start in enumerate(range(0, len(ids) - 1, max(1, limit - 1)), 1):
        name = f"{encoded.question_id} part {number}"
        piece = replace(encoded, question_id=name, input_ids=ids[start : start + limit], prompt_tokens=1)
        pieces.append(piece)
    return pieces
