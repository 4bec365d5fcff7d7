"""One look at a training: the letters that the model would answer now, against those before its first step.

In: predictions of the fixed questions now and at step 0, the number of the look. Out: a ``Look``, its log
entry, and why the training should stop. ``watch`` looks at exam questions, ``train`` at its held-out rows:
both by these rules. Pure. Knows nothing of trainers or models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from kmmlu_fast.analysis.exact_band import ChangeInterval, exact_change_band, exact_change_p_value
from kmmlu_fast.analysis.written_forms import LOW_MASS

StopRule = Literal["worse", "collapsed"]
COLLAPSE_SHARE = 0.60  # of the predictions on one letter


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question's key and the letter that was predicted for it."""

    answer: str
    prediction: str | None
    letter_mass: float | None = None  # probability that the next token is a letter; None: not known

    @property
    def correct(self) -> bool:
        return self.prediction == self.answer


Answers = Mapping[str, AnsweredQuestion]  # by question id


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The model after ``step``. Shares and differences are 0-1."""

    step: int
    number: int  # 0: before the first step
    questions: int
    accuracy: float
    difference: ChangeInterval | None  # of accuracy, to step 0; None for step 0 itself
    p_value: float | None  # of this look alone, not corrected
    letter_share: dict[str, float]  # of the predictions
    # mean probability that the next token is a letter, in the written forms that are read; None: not known
    letter_mass: float | None = None
    collapsed: str | None  # the letter that predictions collapsed onto since step 0
    losses: dict[str, float] = field(default_factory=dict)  # nats per token of plain text, by language

    def log_entry(self, exam: str) -> dict[str, float]:
        """Names and numbers for a trainer's log."""
        entry = {f"{exam}/accuracy": self.accuracy, f"{exam}/questions": float(self.questions)}
        if self.difference is not None:
            entry[f"{exam}/difference"] = self.difference.value
            entry[f"{exam}/difference_low"] = self.difference.low
            entry[f"{exam}/difference_high"] = self.difference.high
        entry |= {f"{exam}/share_{letter}": share for letter, share in self.letter_share.items()}
        if self.letter_mass is not None:
            entry[f"{exam}/letter_mass"] = self.letter_mass
        return entry | {f"forgetting/loss_{language}": loss for language, loss in self.losses.items()}

    def stop_reason(self, rule: StopRule | None) -> str | None:
        """Why training should stop by ``rule``; None: it should go on."""
        band = self.difference
        if band is None or rule is None:
            return None
        if self.collapsed is not None:
            share = self.letter_share[self.collapsed]
            return f"{share:.0%} of the predictions are {self.collapsed}: they collapsed onto one letter"
        if rule == "worse" and band.high < 0:
            return (
                f"accuracy is worse than before training by {-band.value:.1%}"
                f" ({-band.high:.1%} to {-band.low:.1%}, valid over all measurements)"
            )
        return None

    def __str__(self) -> str:
        shares = " ".join(f"{letter} {share:.0%}" for letter, share in self.letter_share.items())
        text = f"step {self.step}: accuracy {self.accuracy:.1%} of {self.questions} questions"
        if self.difference is not None:
            band = self.difference
            text += f", {band.value:+.1%} ({band.low:+.1%} to {band.high:+.1%}, valid over all looks)"
        text += f", predicted {shares}"
        if self.letter_mass is not None and self.letter_mass < LOW_MASS:
            text += f", but the letters hold only {self.letter_mass:.0%} of the next token's probability"
        return text


def compare_with_start(
    step: int, number: int, now: Answers, before: Answers | None, losses: dict[str, float]
) -> Look:
    """The look of ``now``, which holds some or all questions of ``before``; None: this is the start."""
    letters = sorted(
        {"A", "B", "C", "D"} | {answer.prediction for answer in now.values() if answer.prediction}
    )
    counts = Counter(answer.prediction for answer in now.values())
    shares = {letter: counts[letter] / len(now) for letter in letters}
    correct = sum(answer.correct for answer in now.values())
    masses = [answer.letter_mass for answer in now.values() if answer.letter_mass is not None]
    band, p_value, collapsed = None, None, None
    if before is not None:
        gained, lost = _count_changes(
            {name: before[name].correct for name in now}, {name: now[name].correct for name in now}
        )
        band = exact_change_band(gained, lost, len(now), number)
        p_value = exact_change_p_value(gained, lost)
        collapsed = _find_collapse(number, now, before)
    return Look(
        step=step,
        number=number,
        questions=len(now),
        accuracy=correct / len(now),
        difference=band,
        p_value=p_value,
        letter_share=shares,
        letter_mass=fmean(masses) if masses else None,
        collapsed=collapsed,
        losses=losses,
    )


def _find_collapse(number: int, now: Answers, before: Answers) -> str | None:
    return find_letter_collapse(
        {name: before[name].prediction for name in now}, {name: now[name].prediction for name in now}, number
    )


def find_letter_collapse(
    before: Mapping[str, str | None], now: Mapping[str, str | None], looks: int = 1
) -> str | None:
    """The most frequent letter of ``now`` (by question), if it has over 60 % of the predictions and its rise
    since ``before`` is shown; ``looks``: how many times it was looked for.

    A base that answers "A" from the start has not collapsed.
    """
    counts = Counter(letter for letter in now.values() if letter is not None)
    if not counts:
        return None
    letters = {"A", "B", "C", "D", *counts}
    letter, count = counts.most_common(1)[0]
    gained, lost = _count_changes(
        {name: before[name] == letter for name in now}, {name: now[name] == letter for name in now}
    )
    rise = exact_change_band(gained, lost, len(now), looks, among=len(letters))
    return letter if count > COLLAPSE_SHARE * len(now) and rise.low > 0 else None


def _count_changes(before: Mapping[str, bool], now: Mapping[str, bool]) -> tuple[int, int]:
    """How many became true, and how many false."""
    gained = sum(now[name] and not before[name] for name in now)
    return gained, sum(before[name] and not now[name] for name in now)
