"""Options inside a question's text: "A. ...", "(A) ...", "A: ...", "① ...", each on a line or all on one.

In: the text. Out: the question without its options, and the options. Knows nothing of exams.
"""

from __future__ import annotations

import re

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.option_marks import CIRCLED, SYLLABLES

_PATTERNS = (  # in the order in which they are tried; the group is the mark
    (re.compile(r"(?:^|(?<=\s))[(\[]?([A-J])[)\].:](?=\s|\S)"), "".join(OPTION_LETTERS)),
    (re.compile(f"([{CIRCLED}])"), CIRCLED),
    (re.compile(rf"(?:^|(?<=\s))[(\[]?([{SYLLABLES}])[)\].:](?=\s)"), SYLLABLES),
    (re.compile(r"(?:^|\n)\s*\(?([1-9])[).](?=\s)"), "123456789"),
)
_AFTER_OPTIONS = re.compile(r"\n\s*(?:#{1,4}\s|정답\s?[:：]|답\s?[:：]|Answer\s?:).*", re.DOTALL)
_HEADING = re.compile(r"\n\s*(?:#{1,4}\s*)?(?:선택지|보기|선지|Options|Choices)\s?[:：]?\s*$")


def split_inline_options(text: str, where: str) -> tuple[str, list[str]]:
    """(question, options) of a text that ends with options A, B, ... (or ①, ②, ...; 가, 나, ...; 1, 2, ...)
    in order. DataError if it has no two consecutive markers."""
    for pattern, series in _PATTERNS:
        found = _split_at_series(text, list(pattern.finditer(text)), series)
        if found is not None:
            return found
    raise DataError(
        f"{where}: no options found in the text: expected them at its end as 'A. ...', 'B. ...', '(A) ...'"
        " or '① ...'"
    )


def _split_at_series(text: str, marks: list[re.Match[str]], series: str) -> tuple[str, list[str]] | None:
    """The text before the last run of the series' marks, and the texts after each of them."""
    for start in reversed(range(len(marks))):
        if marks[start][1] != series[0]:
            continue
        chain = [marks[start]]
        for mark in marks[start + 1 :]:
            if len(chain) < len(series) and mark[1] == series[len(chain)]:
                chain.append(mark)
        if len(chain) >= 2:
            ends = [*(mark.start() for mark in chain[1:]), len(text)]
            options = [text[mark.end() : end].strip() for mark, end in zip(chain, ends, strict=True)]
            options[-1] = _AFTER_OPTIONS.sub("", "\n" + options[-1]).strip() or options[-1]
            stem = _HEADING.sub("", text[: chain[0].start()].rstrip()).strip()
            if all(options):
                return stem, options
    return None
