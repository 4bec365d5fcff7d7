"""Which exam questions occur in the rows that a trainer trains on.

In: the trainer's rows, of any kind that has a length, and its tokenizer. Out: ``SearchedRows``: their
normalised text, and a note on what of it was not searched and why. Knows nothing of exams or looks.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Reading 200,000 rows of 150 words takes 15 seconds, and their text stays in memory until all is searched.
MOST_ROWS, MOST_CHARACTERS = 200_000, 300_000_000
# Columns of tokens, as TRL's trainers name them; those of older ones end in _input_ids.
_TOKEN_COLUMNS = ("input_ids", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")
_UNCHECKED = "whether these questions are among the training rows was not checked: "
_MEDIA = re.compile(r"\b(?:Image|Audio|Video)\(")
_STREAM = "the rows are a stream, which only training may read"


@dataclass(frozen=True, slots=True)
class SearchedRows:
    """``note``: what was not searched, and why; "" if everything was."""

    text: str
    note: str = ""

    def holds_all(self, texts: Iterable[str]) -> bool:
        """Whether each of these texts occurs, letters and digits only. False without any to look for."""
        wanted = [normalised for text in texts if (normalised := _normalise_text(text))]
        return bool(wanted) and all(text in self.text for text in wanted)


def search_rows(rows: Any, tokenizer: Any) -> SearchedRows:
    """The text of the first ``MOST_ROWS`` rows: strings however deep, and tokens in words again."""
    if rows is None:
        return SearchedRows("", f"{_UNCHECKED}the trainer has no training rows yet")
    count = _count_rows(rows)
    if count is None:
        return SearchedRows("", _UNCHECKED + _STREAM)
    texts: list[str] = []
    searched = characters = 0
    try:
        with _same_random_numbers():  # rows may be made by the user's code
            plain = _without_media(rows)
            while searched < min(count, MOST_ROWS) and characters < MOST_CHARACTERS:
                found = [_normalise_text(text) for text in _row_texts(plain[searched], tokenizer)]
                texts += filter(None, found)
                characters += sum(map(len, found))
                searched += 1
    except NotImplementedError:  # torch's streams may have a length, and inherit a method that gives no row
        return SearchedRows("", _UNCHECKED + _STREAM)
    if not texts:
        return SearchedRows("", f"{_UNCHECKED}the rows hold no text")
    note = ""
    if searched < count:
        note = (
            f"only the first {searched:,} of {count:,} training rows were searched for these questions; one"
            " that is in a later row is asked all the same"
        )
    return SearchedRows("\n".join(texts), note)


def _without_media(rows: Any) -> Any:
    """Rows of ``datasets`` without columns of images, sound and video, which reading a row would decode."""
    features = getattr(rows, "features", None)
    if not isinstance(features, Mapping) or not hasattr(rows, "remove_columns"):
        return rows
    media = [name for name, kind in features.items() if _MEDIA.search(repr(kind))]
    return rows.remove_columns(media) if media and len(media) < len(features) else rows


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Python's, NumPy's and torch's generators are afterwards as they were."""
    modules = {name: sys.modules[name] for name in ("random", "numpy", "torch") if name in sys.modules}
    read = {
        "random": lambda module: (module.setstate, module.getstate()),
        "numpy": lambda module: (module.random.set_state, module.random.get_state()),
        "torch": lambda module: (module.set_rng_state, module.get_rng_state()),
    }
    states = [read[name](module) for name, module in modules.items()]
    try:
        yield
    finally:
        for write, state in states:
            write(state)


def _count_rows(rows: Any) -> int | None:
    """None for rows that have no length, or cannot be asked for one of them."""
    if not hasattr(rows, "__getitem__"):
        return None
    try:
        return len(rows)
    except (TypeError, NotImplementedError):
        return None


def _row_texts(row: Any, tokenizer: Any) -> Iterator[str]:
    yield from _texts_in(row)
    if not isinstance(row, Mapping):
        return
    for name, value in row.items():
        if name in _TOKEN_COLUMNS or str(name).endswith("_input_ids"):
            for tokens in _token_lists(value):
                yield tokenizer.decode(tokens)


def _token_lists(value: Any) -> Iterator[list[int]]:
    """The lists of whole numbers in a list, an array or a tensor, however deep."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, (list, tuple)) or not value:
        return
    if isinstance(value[0], int):
        yield list(value)
    else:
        for part in value:
            yield from _token_lists(part)


def _texts_in(value: Any) -> Iterator[str]:
    """Every string in a row: columns, chat messages, nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts_in(part)
    elif isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        for part in value:
            yield from _texts_in(part)


def _normalise_text(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
