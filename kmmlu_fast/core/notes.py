"""What was read, and what must be said about it.

In: a value and plain sentences. Out: one record, so that whoever asked decides where the sentences go: the
terminal, a run's metrics, a card. Knows nothing of either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kmmlu_fast.core.console import log_note

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WithNotes(Generic[T]):
    """A value with its notes: one sentence each, without "warning:" before it."""

    value: T
    notes: tuple[str, ...] = ()

    def log_and_unwrap(self) -> T:
        """The value, after its notes went to the log as warnings."""
        log_as_warnings(self.notes)
        return self.value


def log_as_warnings(notes: Iterable[str]) -> None:
    """Each note as a warning in the log, which a command shows on stderr."""
    for text in notes:
        log_note(f"warning: {text}")
