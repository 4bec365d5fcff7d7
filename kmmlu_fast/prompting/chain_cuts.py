"""A generated text cut after so many tokens, and whether a thought is open there: by tokens alone, so that
no text is decoded while an engine runs.

In: token ids. Out: token ids, or a yes or no. Knows nothing of requests or letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ThoughtMarks:
    """The tokens that open and close a thought, as ``ReasoningParser`` has them as texts."""

    openers: tuple[TokenIds, ...] = ()
    closers: tuple[TokenIds, ...] = ()

    def is_open(self, ids: Sequence[int], in_thought: bool) -> bool:
        """Whether the last thought in ``ids`` is not closed. ``in_thought``: they begin inside one."""
        ends = [place + len(closer) for closer in self.closers if (place := find_last(ids, closer)) >= 0]
        after = ids[max(ends, default=0) :]
        opened = any(find_last(after, opener) >= 0 for opener in self.openers)
        return opened or (in_thought and not ends)


def find_last(ids: Sequence[int], part: TokenIds) -> int:
    """Where ``part`` stands last in ``ids``; -1 if nowhere."""
    size = len(part)
    for start in range(len(ids) - size, -1, -1):
        if tuple(ids[start : start + size]) == part:
            return start
    return -1
