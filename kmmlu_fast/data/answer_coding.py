"""How a table writes its answers, told from all of its rows: one rule for exams and for training rows.

In: each row's answer cell and options. Out: a ``Coding`` (from 0, from 1, letter, text), and the answer's
letter under it. A coding is taken only if the others do not fit the rows as well: what fits two ways is
refused with a question, because one of them trains or scores the wrong option in silence.

    letter   A, (B), ②, 다, "3번", or the label that the row gives its option
    from 0   whole numbers, 0 is the first option; from 1: 1 is the first
    text     the right option's text; a number is an option's text only if the numbers cannot be places
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.exam import Coding
from kmmlu_fast.data.option_cells import OptionCells, is_missing
from kmmlu_fast.data.option_marks import read_mark, read_whole_number

CODINGS: tuple[Coding, ...] = ("letter", "from 1", "from 0", "text")
_ENOUGH_ROWS = 1000  # after so many rows, a coding that alone fits all of them is taken
_SHARE = 0.9  # of the rows that a coding must fit; the others are reported as faults
_KMMLU_COLUMNS = frozenset({"question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy"})


def answer_place(answer: Any, options: OptionCells, coding: Coding) -> int | None:
    """The place of the right option under a coding; None if the answer does not fit it."""
    if is_missing(answer):
        return None
    count = len(options.texts)
    place: int | None
    if coding == "text":
        text = _plain_text(answer)
        places = [place for place, option in enumerate(options.texts) if option.strip() == text]
        place = places[0] if len(places) == 1 else None
    elif coding == "letter":
        text = _plain_text(answer)
        place = options.labels.index(text) if text in options.labels else read_mark(text)
    else:
        number = read_whole_number(answer)
        if number is None:
            # "2번" and ② count from 1 whoever counts
            mark = read_mark(str(answer)) if coding == "from 1" and not _is_letter(str(answer)) else None
            number = None if mark is None else mark + 1
        place = None if number is None else number - (coding == "from 1")
    return place if place is not None and 0 <= place < count else None


def answer_letter(answer: Any, options: OptionCells, coding: Coding, where: str) -> str:
    """The right option's letter; DataError says what the coding allows."""
    place = answer_place(answer, options, coding)
    if place is not None:
        return OPTION_LETTERS[place]
    text = "" if is_missing(answer) else _plain_text(answer)
    count = len(options.texts)
    if not text:
        raise DataError(f"{where}: the answer is empty")
    if coding == "text":
        several = sum(option.strip() == text for option in options.texts) > 1
        raise DataError(
            f"{where}: answer {text!r} is {'more than one' if several else 'none'} of its options"
        )
    if coding == "letter":
        allowed = ", ".join(OPTION_LETTERS[:count])
        raise DataError(f"{where}: answer {text!r} is not allowed; it must be one of {allowed}")
    first = 0 if coding == "from 0" else 1
    raise DataError(
        f"{where}: answer {text!r} is not allowed; it must be {first} to {first + count - 1} ({first} = A)"
    )


def _plain_text(answer: Any) -> str:
    number = read_whole_number(answer) if isinstance(answer, float) else None
    return str(answer if number is None else number).strip()


def _is_letter(text: str) -> bool:
    return text.strip("()[]. ").upper() in OPTION_LETTERS


@dataclass(slots=True, kw_only=True)
class CodingEvidence:
    """What the rows read so far say about their coding."""

    rows: int = 0  # with an answer
    empty: int = 0  # without
    negative: int = 0
    marks: int = 0  # answers that are letters, circled numbers and the like
    fits: dict[Coding, int] = field(default_factory=lambda: dict.fromkeys(CODINGS, 0))
    # the first row that two codings read differently
    differ: dict[tuple[Coding, Coding], str] = field(default_factory=dict)
    counted_from: set[int] = field(default_factory=set)  # the numbers that the options' own marks begin with
    is_kmmlu: bool = False
    examples: dict[str, None] = field(default_factory=dict)
    fault: DataError | None = None  # of the first row that could not be read

    def add_row(self, answer: Any, options: OptionCells, columns: Iterable[Any] = ()) -> None:
        """One row's answer and options."""
        if is_missing(answer):
            self.empty += 1
            return
        self.rows += 1
        number = read_whole_number(answer)
        self.negative += number is not None and number < 0
        self.marks += read_mark(_plain_text(answer)) is not None
        self.is_kmmlu = self.is_kmmlu or _KMMLU_COLUMNS.issubset(columns)
        if options.first_number is not None:
            self.counted_from.add(options.first_number)
        if len(self.examples) < 5:
            self.examples[_plain_text(answer)] = None
        places = {coding: answer_place(answer, options, coding) for coding in CODINGS}
        fitting = [coding for coding in CODINGS if places[coding] is not None]
        for rank, coding in enumerate(fitting):
            self.fits[coding] += 1
            for other in fitting[rank + 1 :]:
                if places[coding] != places[other] and (coding, other) not in self.differ:
                    self.differ[coding, other] = (
                        f"{_plain_text(answer)!r} is {OPTION_LETTERS[places[coding] or 0]} or"
                        f" {OPTION_LETTERS[places[other] or 0]}"
                    )

    def best_codings(self) -> list[Coding]:
        """The codings that fit best, those that differ nowhere counted once; more than one: undecided."""
        most = max(self.fits.values())
        if not self.rows:
            return []
        if most < _SHARE * self.rows:  # letters are letters, also beyond the options that a row has
            return ["letter"] if self.marks >= _SHARE * self.rows else []
        best = [coding for coding in CODINGS if self.fits[coding] == most]
        counting = {"from 0": 0, "from 1": 1}
        hints = self.counted_from or ({1} if self.is_kmmlu else set())
        if len(hints) == 1 and any(counting.get(coding) in hints for coding in best):
            best = [coding for coding in best if counting.get(coding) in hints]
        kept: list[Coding] = []
        for coding in best:
            if not any((other, coding) not in self.differ for other in kept):
                kept.append(coding)
        return kept

    def is_settled(self) -> bool:
        """Whether enough rows were read, and one coding alone fits them all."""
        best = self.best_codings() if self.rows >= _ENOUGH_ROWS else []
        return len(best) == 1 and self.fits[best[0]] == self.rows

    def decide(self, source: str, how_to_say: str) -> Coding:
        """The coding. ConfigError if the rows leave it open; ``how_to_say`` is the line or flag that settles
        it. DataError if no answer can be used."""
        if not self.rows and self.fault is not None:
            raise self.fault
        if not self.rows:
            raise DataError(
                f"{source}: column answer is empty; it must hold each question's letter, or the right"
                " option's text"
            )
        if self.negative == self.rows:
            answers = ", ".join(self.examples)
            raise DataError(
                f"{source}: every answer is {answers}: the answers are not public (test splits on the hub"
                " often hide them); give a split with answers"
            )
        best = self.best_codings()
        if len(best) == 1:
            return best[0]
        answers = bounded_repr(list(self.examples))[1:-1]
        if not best:
            shares = {coding: f"{self.fits[coding] / self.rows:.0%}" for coding in CODINGS}
            told = ", ".join(f"{coding} {share}" for coding, share in shares.items())
            raise ConfigError(
                f"{source}: column answer ({answers}) leaves its coding open: no coding fits the rows"
                f" ({told}); correct the answers, or {how_to_say}"
            )
        example = self.differ.get((best[0], best[1]), "")
        raise ConfigError(
            f"{source}: column answer ({answers}) leaves its coding open: {' and '.join(best)} fit the rows"
            f" equally well ({example}); which one is it? {how_to_say}"
        )
