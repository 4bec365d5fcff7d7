"""Measurements on the held-out rows, and how they compare with the base's.

In: letters and a loss, or ``HeldOutMeasurement``s. Out: a ``HeldOutMeasurement``; its change since the base
(``analysis.training_look``, as ``watch`` has it); which one is better; warnings. Knows nothing of models,
logs or training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from kmmlu_fast.analysis.training_look import AnsweredQuestion, Look, compare_with_start
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS

CHANGE_FIELDS = ("difference", "difference_low", "difference_high")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutMeasurement:
    """One measurement on the held-out rows. ``step`` 0 is the base: a new LoRA changes nothing."""

    step: int
    loss: float  # nats per response token
    num_rows: int
    accuracy: float
    balanced_accuracy: float  # mean recall over the letters that occur in the key
    letter_share: dict[str, float]  # of the predictions, A-D
    answer_share: dict[str, float]  # of the key, A-D
    # mean probability that the next token is a letter in the trained form; None in old logs, or if a letter
    # is several tokens
    letter_mass: float | None = None
    predictions: str = ""  # one letter per row, for paired tests; "" in old logs
    answers: str = ""
    # of accuracy, since the base, with a band that is valid over all measurements of the training; None for
    # the base itself, and in old logs without predictions
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    collapsed: str | None = None  # the letter that predictions collapsed onto since the base


def summarise_held_out(
    step: int, loss: float, answers: list[str], predictions: list[str], masses: list[float] | None = None
) -> HeldOutMeasurement:
    """Letter statistics of one measurement; ``masses``: by row. ValueError if there are no rows."""
    if not answers:
        raise ValueError("no held-out rows to summarise")
    predicted, key = Counter(predictions), Counter(answers)
    hits = Counter(a for a, p in zip(answers, predictions, strict=True) if a == p)
    letters = [letter for letter in OPTION_LETTERS if letter in LETTERS or key[letter] or predicted[letter]]
    recalls = [hits[letter] / key[letter] for letter in letters if key[letter]]
    total = len(answers)
    return HeldOutMeasurement(
        step=step,
        loss=loss,
        num_rows=total,
        accuracy=sum(hits.values()) / total,
        balanced_accuracy=sum(recalls) / len(recalls),
        letter_share={letter: predicted[letter] / total for letter in letters},
        answer_share={letter: key[letter] / total for letter in letters},
        letter_mass=sum(masses) / len(masses) if masses else None,
        predictions="".join(predictions),
        answers="".join(answers),
    )


def look_at_held_out(
    base: HeldOutMeasurement, measurement: HeldOutMeasurement, number: int
) -> tuple[HeldOutMeasurement, Look | None]:
    """``measurement``, the training's ``number``-th (1, 2, ...), with its change since the base, and the look
    that shows it; unchanged and None if the rows' letters are not known.
    """
    if not base.predictions or base.answers != measurement.answers:
        return measurement, None
    look = replace(
        compare_with_start(measurement.step, number, _answers(measurement), _answers(base), {}),
        letter_mass=measurement.letter_mass,  # known as the rows' mean
    )
    band = look.difference
    if band is None:
        return measurement, look
    changed = replace(
        measurement,
        difference=band.value,
        difference_low=band.low,
        difference_high=band.high,
        collapsed=look.collapsed,
    )
    return changed, look


def _answers(measurement: HeldOutMeasurement) -> dict[str, AnsweredQuestion]:
    rows = zip(measurement.answers, measurement.predictions, strict=True)
    return {str(place): AnsweredQuestion(answer, letter) for place, (answer, letter) in enumerate(rows)}


def format_change(measured: Mapping[str, Any]) -> str:
    """The change of a measurement's fields as text; "" if it is not known, as in cards from before there was
    one: +0.021 (-0.030 to +0.072, valid over all measurements).
    """
    difference, low, high = (measured.get(name) for name in CHANGE_FIELDS)
    if difference is None:
        return ""
    return f"{difference:+.3f} ({low:+.3f} to {high:+.3f}, valid over all measurements)"


def format_letters(measured: Mapping[str, Any]) -> str:
    """The letters of a measurement's fields as text: predicted A 20% ... D 30%  mass on the letters 97%; the
    mass is left out if it is not known, as in old cards.
    """
    shares = " ".join(f"{letter} {share:.0%}" for letter, share in measured["letter_share"].items())
    mass = measured.get("letter_mass")
    return f"predicted {shares}" + ("" if mass is None else f"  mass on the letters {mass:.0%}")


def describe_measurement(measurement: HeldOutMeasurement, best: bool) -> str:
    """The progress line of a measurement."""
    fields = asdict(measurement)
    change = format_change(fields)
    parts = [
        f"held-out at step {measurement.step}: loss {measurement.loss:.4f}",
        f"accuracy {measurement.accuracy:.3f}",
        f"balanced {measurement.balanced_accuracy:.3f}",
        f"change {change}" if change else "",
        format_letters(fields),
        f"(collapsed onto {measurement.collapsed})" if measurement.collapsed else "",
        "(best)" if best else "",
        "(base)" if measurement.step == 0 else "",
    ]
    return "  ".join(part for part in parts if part)


def collapse_warnings(base: HeldOutMeasurement, kept: HeldOutMeasurement) -> list[str]:
    """Warnings about what the kept adapter does to the predicted letters."""
    warnings = []
    letter = kept.collapsed
    if letter is not None:
        before, key = base.letter_share.get(letter, 0.0), kept.answer_share.get(letter, 0.0)
        warnings.append(
            f"letter collapse: {kept.letter_share[letter]:.0%} of the {kept.num_rows} held-out predictions"
            f" are {letter} (base: {before:.0%}, key: {key:.0%}); a gain or loss may be letter habit alone."
            " Balance the letters (sample --permute-options, train --rotate-options), or train longer or with"
            " a lower learning rate"
        )
    if kept.difference_high is not None and kept.difference_high < 0:
        warnings.append(
            f"accuracy on the {kept.num_rows} held-out rows fell from the base's {base.accuracy:.3f} to"
            f" {kept.accuracy:.3f}: {format_change(asdict(kept))}; check the letter shares before trusting"
            " any gain"
        )
    return warnings


def selection_notes(
    base: HeldOutMeasurement, kept: HeldOutMeasurement, measured: int, keep: str
) -> list[str]:
    """What choosing the best of several measurements means for its numbers. The base is a candidate too."""
    if not is_better(kept, base, keep):
        return [
            f"the base wins: none of {measured} measurements on the {kept.num_rows} held-out rows was better"
            f" than the base (loss {base.loss:.4f} against {kept.loss:.4f}, accuracy {base.accuracy:.3f}"
            f" against {kept.accuracy:.3f}); the best adapter was kept anyway"
        ]
    if measured > 1:
        return [
            f"accuracy {kept.accuracy:.3f} is that of the best of {measured} measurements on the same"
            f" {kept.num_rows} rows: the best of several is optimistic, so compare the adapter with the base"
            " on other rows"
        ]
    return []


def is_better(new: HeldOutMeasurement, best: HeldOutMeasurement | None, keep: str) -> bool:
    """Whether ``new`` replaces ``best``: lower loss, or higher accuracy (ties: lower loss)."""
    if best is None:
        return True
    if keep == "best-accuracy":
        return (new.accuracy, -new.loss) > (best.accuracy, -best.loss)
    return new.loss < best.loss
