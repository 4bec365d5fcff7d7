"""A value together with notes for the user.

In: a value and plain sentences. Out: one record, so that the caller decides where the sentences go: the
terminal, a run's metrics, an adapter's card. Knows nothing of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kmmlu_fast.core.console import log_note

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WithNotes(Generic[T]):
    """A value with its notes: one sentence each, without a leading "warning:"."""

    value: T
    notes: tuple[str, ...] = ()

    def log_and_unwrap(self) -> T:
        """Log the notes as warnings and return the value."""
        log_as_warnings(self.notes)
        return self.value


def log_as_warnings(notes: Iterable[str]) -> None:
    """Log each note as a warning, which a command shows on stderr."""
    for text in notes:
        log_note(f"warning: {text}")
