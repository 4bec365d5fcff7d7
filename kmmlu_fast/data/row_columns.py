"""Columns of a training row that nobody reads: which are harmless, which change what must be trained.

In: a row's columns and those that its layout read. Out: the columns to name to the user, or a DataError for
one that must not be ignored. Knows nothing of how layouts are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.option_cells import is_missing

# Where a row comes from, and what somebody says about it: no part of the conversation.
_HARMLESS = re.compile(
    r"(?:.*[_. -])?(?:id|ids|uid|uuid|guid|idx|index|no|num|number|row|key|hash|md5|sha\d*|url|urls|uri|link"
    r"|doi|source|sources|src|origin|dataset|corpus|subset|split|file|filename|filepath|page|category|categories"
    r"|subcategory|supercategory|group|subject|topic|topics|domain|field|genre|cluster|task|tasks|skill|type|kind|tag|tags"
    r"|lang|language|languages|locale|country|license|licence|author|annotator|creator|user|model|models"
    r"|generator|provider|version|date|time|datetime|timestamp|created|updated|created_at|updated_at|year"
    r"|difficulty|level|grade|score|scores|reward|rewards|rating|quality|confidence|perplexity|ppl|votes|likes|accuracy"
    r"|length|len|count|tokens|turns|turn|title|name|metadata|meta|info|comment|notes|remark|toxic"
    r"|toxicity|moderation|redacted|pii|verified|valid|exam|seed|temperature|finish_reason|usage|출처|분류|번호|과목)",
    re.IGNORECASE,
)
_MEDIA = re.compile(
    r"(?:.*[_.-])?(?:images?|img|imgs|pictures?|photo|pixel_values|audios?|videos?|figures?)(?:[_.-]?\d+)?",
    re.I,
)
_PREFERENCE = frozenset(
    {"chosen", "rejected", "chosen_response", "rejected_response", "preferred", "dispreferred"}
)
_MASKS = frozenset(
    {
        "weight",
        "weights",
        "loss_mask",
        "loss_weight",
        "mask",
        "masks",
        "labels",
        "label_mask",
        "train_detail",
        "kto_tag",
        "assistant_masks",
        "completion_mask",
        "train",
        "training",
        "loss",
    }
)


def media_columns(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """The row's columns that hold a picture, sound or film."""
    return tuple(
        str(name) for name, value in row.items() if _MEDIA.fullmatch(str(name)) and not _is_empty(value)
    )


def unread_columns(row: Mapping[Any, Any], read: Iterable[str], where: str) -> list[str]:
    """The columns with a value that were not read and are not known to be harmless. DataError for one that
    changes what is trained."""
    rest = {str(name): value for name, value in row.items() if name not in set(read) and not _is_empty(value)}
    if not rest:
        return []
    preference = sorted(rest.keys() & _PREFERENCE)
    if preference:
        raise DataError(describe_preference(preference, where))
    for name, value in rest.items():
        if _MEDIA.fullmatch(name):
            raise DataError(
                f"{where}: has {name}, which is not trained here: only text is; take such rows out, or name"
                " the columns to read with --columns"
            )
        if name == "label" and isinstance(value, bool):
            raise DataError(
                f"{where}: has a label that is true or false, as KTO's rows have, which is not done here:"
                " keep the rows whose label is true, and drop the column or name the columns to read with"
                " --columns"
            )
        if name in _MASKS and not _is_neutral_weight(name, value):
            raise DataError(
                f"{where}: has {name}, which changes what is trained and is not read in this place; write"
                " weight or train into the messages, give FILE:0.3 to weigh a file, or name the columns to"
                " read with --columns"
            )
    return [name for name in rest if not _HARMLESS.fullmatch(name) and name not in _MASKS]


def describe_preference(columns: Iterable[str], where: str) -> str:
    """Why preference data is refused, and how to train on the better answers alone."""
    return (
        f"{where}: is preference data ({', '.join(columns)}) for DPO and its kin, which are not done here;"
        " to train on the chosen answers alone, give --columns prompt=prompt,completion=chosen (or"
        " messages=chosen, if chosen is a whole conversation)"
    )


def _is_neutral_weight(name: str, value: Any) -> bool:
    return name in ("weight", "loss_weight", "weights", "train", "training", "loss") and value in (
        1,
        1.0,
        True,
    )


def _is_empty(value: Any) -> bool:
    if isinstance(value, (list, dict, tuple)):
        return not value
    return is_missing(value)
