"""Marks that name an option: A, (B), ②, 다, (라), ㄱ, "3번".

In: the text of a key, or the options of a question. Out: the place that a mark stands for (0 = the first
option), and options without the marks that they bring themselves. A bare number is not a mark: whether it
counts from 0 or from 1 is a question for ``answer_coding``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import OPTION_LETTERS

SYLLABLES = "가나다라마바사아자차"
CONSONANTS = "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊ"
CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_SERIES = (
    "".join(OPTION_LETTERS),
    SYLLABLES,
    CONSONANTS,
    CIRCLED,
    "㉮㉯㉰㉱㉲㉳㉴㉵㉶㉷",
    "㉠㉡㉢㉣㉤㉥㉦㉧㉨㉩",
)
_PLACES = {mark: place for series in _SERIES for place, mark in enumerate(series)}
_NUMBERED = re.compile(r"(\d{1,2})\s*번")
_BRACKETS = "()[]<>{}（）［］〈〉 .,:：)、"
_NUMBER = re.compile(r"([+-]?\d{1,3})(?:\.0+)?")
# A mark at the head of an option: (A), (1), A. A: A) 가. 가) 1. 1) ①; not (가), which refers to a statement.
_HEAD = re.compile(
    r"\s*(?:[(\[（]\s*([A-Ja-j]|\d{1,2})\s*[)\]）][.:]?\s*"
    r"|([A-Ja-j가나다라마바사아자차ㄱ-ㅊ])(?:[.:：]\s+|[)）]\s*)"
    r"|(\d{1,2})(?:[.:：]\s+(?=\D)|[)）]\s*)"  # not "1. 2 kW", which is 1.2 kW
    rf"|([{CIRCLED}㉮-㉷㉠-㉩])[.:]?\s*)(?=\S)"
)
_REFERENCE = re.compile(rf"[{CIRCLED}㉮-㉷㉠-㉩]|[(（][A-J가-차ㄱ-ㅊ1-9][)）]")


def read_mark(text: str) -> int | None:
    """The place that a mark names, 0 to 9; None if the text is no mark.

    >>> [read_mark(mark) for mark in ("B", "(c)", "④", "가", "2번", "3", "산")]
    [1, 2, 3, 0, 1, None, None]
    """
    bare = text.strip(_BRACKETS)
    if len(bare) == 1:
        mark = bare.upper()
        if mark not in _PLACES:
            mark = unicodedata.normalize("NFKC", bare).upper() if bare not in CIRCLED else bare
        return _PLACES.get(mark)
    numbered = _NUMBERED.fullmatch(bare)
    return int(numbered[1]) - 1 if numbered and 1 <= int(numbered[1]) <= len(OPTION_LETTERS) else None


def read_whole_number(value: object) -> int | None:
    """A whole number as a table holds it: 3, 3.0, "3", " 3.0", "(3)"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    match = _NUMBER.fullmatch(str(value).strip().strip("()[] "))
    return int(match[1]) if match else None


def strip_option_marks(options: Sequence[str], where: str) -> tuple[list[str], int | None]:
    """The options without marks of their own if all of them have one and each agrees with its place; and the
    number that the first place has, if the marks are numbers. DataError if marks and places contradict."""
    heads = [_HEAD.match(option) for option in options]
    if not all(heads):
        return list(options), None
    marks = [next(filter(None, head.groups())) for head in heads if head]
    rests = [option[head.end() :].strip() for option, head in zip(options, heads, strict=True) if head]
    if any(_REFERENCE.search(rest) for rest in rests):
        return list(options), None  # "① 과 ②": statements of the question, not marks
    numbers = [int(mark) for mark in marks if mark.isdecimal()]
    places = [read_mark(mark) for mark in marks]
    if len(numbers) == len(marks):
        first = min(numbers)
        places = [number - first for number in numbers]
        if first not in (0, 1):
            return list(options), None
    if places == list(range(len(options))):
        return rests, min(numbers) if len(numbers) == len(marks) else None
    if sorted(place if place is not None else -1 for place in places) == list(range(len(options))):
        raise DataError(
            f"{where}: the options' own marks ({', '.join(marks)}) contradict their places; it is unclear"
            " which of the two the answer means: put the options in the order of their marks"
        )
    return list(options), None
