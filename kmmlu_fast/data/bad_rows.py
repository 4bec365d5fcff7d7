"""Rows that cannot be used: counted by reason, the first ten named, and then refused or left out.

In: one DataError per bad row. Out: one DataError for all of them, or a note. Knows nothing of layouts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import DataError

BadRowPolicy = Literal["refuse", "drop"]
_NAMED = 10
_HOPELESS = 1000  # if the first so many rows are all bad, the rest is not read


@dataclass(slots=True, kw_only=True)
class BadRows:
    """The bad rows of one source."""

    source: str
    policy: BadRowPolicy = "refuse"
    rows: int = 0  # all rows read, good and bad
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # the first error of each reason
    named: list[str] = field(default_factory=list)  # "row 4" of the first ten

    @property
    def count(self) -> int:
        return self.reasons.total()

    def add(self, error: DataError, number: int) -> None:
        """One bad row. DataError if there is no hope that others are good."""
        reason = describe_reason(str(error))
        self.reasons[reason] += 1
        self.first.setdefault(reason, str(error))
        if len(self.named) < _NAMED:
            self.named.append(f"row {number}")
        if self.count == self.rows == _HOPELESS:
            self.finish()

    def finish(self) -> None:
        """DataError if bad rows are refused, or no row is good; otherwise a note if there are any."""
        if not self.reasons:
            return
        first = next(iter(self.first.values()))
        if self.count == self.rows:
            more = f" (and all of the {self.rows:,} rows likewise)" if self.rows > 1 else ""
            raise DataError(
                f"{first}{more}" if len(self.reasons) == 1 else self._describe_all("; correct them")
            )
        if self.policy == "refuse":
            if self.count == 1:
                raise DataError(
                    f"{first}; the other {self.rows - 1:,} rows are fine: correct it, or leave it out with"
                    " --bad-rows drop"
                )
            raise DataError(self._describe_all("; correct them, or leave them out with --bad-rows drop"))
        log_note(f"warning: {self._count_rows()} left out ({self._counts()}): {self._numbers()}")

    def _numbers(self) -> str:
        more = f" and {self.count - len(self.named):,} more" if self.count > len(self.named) else ""
        return f"{', '.join(self.named)}{more}"

    def _describe_all(self, remedy: str) -> str:
        examples = "; ".join(list(self.first.values())[:3])
        return (
            f"{self._count_rows()} cannot be used ({self._counts()}): {self._numbers()}; such as"
            f" {examples}{remedy}"
        )

    def _count_rows(self) -> str:
        return f"{self.source}: {self.count:,} of {self.rows:,} rows"

    def _counts(self) -> str:
        return ", ".join(f"{reason}: {count:,}" for reason, count in self.reasons.most_common(5))


def describe_reason(message: str) -> str:
    """What is wrong, without the row and its values, so that rows with the same fault are counted together.

    >>> describe_reason("a.jsonl row 7: message 2 has role 'x'; allowed are user")
    'message … has role …'
    """
    text = re.sub(r"^.*? row \d+: ", "", message).split("; ")[0]
    text = re.sub(r"\(.*\)|'[^']*'|\"[^\"]*\"", "…", text)
    return re.sub(r"\b\d+\b", "…", text).strip()
