"""Options inside a question's text: "A. ...", "(A) ...", "A: ...", each on its own line or all on one.

In: the text. Out: the question without its options, and the options. Knows nothing of exams.
"""

from __future__ import annotations

import re

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import OPTION_LETTERS

_MARKER = re.compile(r"(?:^|(?<=\s))[(\[]?([A-J])[)\].:](?=\s|\S)")
_AFTER_OPTIONS = re.compile(r"\n\s*(?:#{1,4}\s|정답\s?[:：]|답\s?[:：]|Answer\s?:).*", re.DOTALL)
_HEADING = re.compile(r"\n\s*(?:#{1,4}\s*)?(?:선택지|보기|선지|Options|Choices)\s?[:：]?\s*$")


def split_inline_options(text: str, where: str) -> tuple[str, list[str]]:
    """(question, options) of a text that ends with options A, B, ... in order. DataError if it has no two
    consecutive markers."""
    marks = list(_MARKER.finditer(text))
    for start in reversed(range(len(marks))):
        if marks[start][1] != "A":
            continue
        chain = [marks[start]]
        for mark in marks[start + 1 :]:
            if len(chain) < len(OPTION_LETTERS) and mark[1] == OPTION_LETTERS[len(chain)]:
                chain.append(mark)
        if len(chain) >= 2:
            ends = [*(mark.start() for mark in chain[1:]), len(text)]
            options = [text[mark.end() : end].strip() for mark, end in zip(chain, ends, strict=True)]
            options[-1] = _AFTER_OPTIONS.sub("", "\n" + options[-1]).strip() or options[-1]
            stem = _HEADING.sub("", text[: chain[0].start()].rstrip()).strip()
            if all(options):
                return stem, options
    raise DataError(
        f"{where}: no options found in the text: expected them at its end as 'A. ...', 'B. ...' or '(A) ...'"
    )
