"""Cells of a table as letters: "B", "(b)", "B.", "②", "2번", "나", or 2 of a column that counts from 1.

In: a column of texts. Out: the letters, and what kind of column it is. Knows nothing of subjects and keys.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr

_HANGUL = "가나다라마바사아자차"
_AROUND = " \t()[]{}<>「」『』【】\"'*`_.,:;。"
_WHOLE = re.compile(r"\d{1,2}(?:\.0+)?")
# What programs write for an answer that could not be read: no letter, and no sign of another column.
_NO_ANSWER = {"", "filtered", "nan", "none", "null", "n/a", "na", "invalid", "unparsed", "error", "x", "-"}


@dataclass(frozen=True, slots=True)
class LetterColumn:
    """A column read as letters. ``kind``: how it names options; "" if it names none."""

    letters: pl.Series
    kind: Literal["letters", "numbers", ""]
    share: float  # of the cells that hold something: how many are letters


def read_letter_cell(text: str) -> tuple[str | None, str]:
    """A cell's letter and what names it: "letters" (also ②, 2번, 나), "numbers", or "" for no letter."""
    normal = unicodedata.normalize("NFKC", text).strip(_AROUND)
    is_marked = normal.isdigit() and not text.strip(_AROUND).isascii()  # ②, ⑵, ２
    if normal.endswith("번") and normal[:-1].strip(_AROUND).isdigit():
        normal, is_marked = normal[:-1].strip(_AROUND), True
    if len(normal) == 1 and normal.upper() in OPTION_LETTERS:
        return normal.upper(), "letters"
    if len(normal) == 1 and normal in _HANGUL:
        return OPTION_LETTERS[_HANGUL.index(normal)], "letters"
    if not _WHOLE.fullmatch(normal):
        return None, ""
    place = int(float(normal))
    letter = OPTION_LETTERS[place - 1] if 1 <= place <= len(OPTION_LETTERS) else None
    return letter, "letters" if is_marked else "numbers"


def read_letter_column(column: pl.Series, where: str, options: int) -> LetterColumn:
    """The column as letters of the first ``options``; other letters are no answers.

    DataError if it has numbers of which one is not from 1 to ``options``, or both numbers and letters.
    Numbers that cannot be places at all (0.93, 812) are no letters.
    """
    texts = column.cast(pl.String).fill_null("")
    read = {text: read_letter_cell(text) for text in texts.unique().to_list()}
    allowed = OPTION_LETTERS[:options]
    kinds = {kind for _, kind in read.values()} - {""}
    numbers = {text for text, (_, kind) in read.items() if kind == "numbers"}
    wrong = [text for text in numbers if read[text][0] not in allowed]
    others = [text for text in read if _is_other_number(text)]
    if numbers and not others:
        if "letters" in kinds:
            raise DataError(
                f"{where}: column {bounded_repr(column.name)} has letters and numbers; give one of the two"
            )
        if wrong:
            row = texts.is_in(wrong).arg_max() or 0
            raise DataError(
                f"{where} row {row}: {column.name} is {texts[row].strip()}; give numbers from 1 (= A) to"
                f" {options}, or letters"
            )
    if others:
        read = dict.fromkeys(read, (None, ""))
    mapping = {text: letter if letter in allowed else None for text, (letter, _) in read.items()}
    letters = texts.replace_strict(mapping, return_dtype=pl.String).alias(column.name)
    said = texts.str.strip_chars(_AROUND).str.to_lowercase().is_in(list(_NO_ANSWER)).not_()
    found = int(letters.is_not_null().sum())
    outside = [text for text, (letter, _) in read.items() if letter and letter not in allowed]
    if (
        int(texts.is_in(outside).sum()) > found / 10
    ):  # codes of another sort, such as C and I for correct and incorrect
        found = 0
    kind: Literal["letters", "numbers", ""] = ""
    if found:
        kind = "letters" if "letters" in kinds else "numbers"
    return LetterColumn(letters, kind, found / max(1, int(said.sum())))


def _is_other_number(text: str) -> bool:
    """A number that is no option's place: 0.93, 812, -1."""
    try:
        value = float(text)
    except ValueError:
        return False
    is_place = value == int(value) and 0 <= value <= len(OPTION_LETTERS) if abs(value) < 1e9 else False
    return value == value and not is_place
