"""The held-out rows under one state of the adapter, and what two such states say beside each other.

In: letters and a loss, or two ``HeldOutMeasurement``s. Out: a ``HeldOutMeasurement``; which is better; sentences worth a warning.
Knows nothing of models, logs or training.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS

COLLAPSE_SHARE = 0.60  # of the held-out predictions on one letter


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutMeasurement:
    """The held-out rows under one state of the adapter. ``step`` 0 is the base: a new LoRA
    changes nothing.
    """

    step: int
    loss: float  # nats a response token
    num_rows: int
    accuracy: float
    balanced_accuracy: float  # mean recall over the letters that occur in the key
    letter_share: dict[str, float]  # of the predictions, A-D
    answer_share: dict[str, float]  # of the key, A-D
    predictions: str = (
        ""  # a letter a row, in the rows' order: what a paired test needs; "" in logs of before
    )
    answers: str = ""


def summarise_held_out(
    step: int, loss: float, answers: list[str], predictions: list[str]
) -> HeldOutMeasurement:
    """Letter statistics of one measurement. ValueError on no rows: an accuracy of nothing is not 0."""
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
        predictions="".join(predictions),
        answers="".join(answers),
    )


def collapse_warnings(base: HeldOutMeasurement, kept: HeldOutMeasurement) -> list[str]:
    """Plain sentences about what the kept adapter does to the letters; [] = nothing to warn of."""
    warnings = []
    letter, share = max(kept.letter_share.items(), key=lambda item: item[1])
    if share > COLLAPSE_SHARE:
        warnings.append(
            f"letter collapse: {share:.0%} of the {kept.num_rows} held-out predictions are {letter} (base:"
            f" {base.letter_share.get(letter, 0.0):.0%}, key: {kept.answer_share[letter]:.0%}); a gain or"
            " loss may be letter habit alone. Balance the letters (sample --permute-options, train"
            " --rotate-options), or train longer or with a lower learning rate"
        )
    fall = accuracy_change_p_value(base, kept)
    if fall is not None and fall < 0.05 and kept.balanced_accuracy < base.balanced_accuracy:
        warnings.append(
            f"balanced accuracy on the {kept.num_rows} held-out rows fell from the base's"
            f" {base.balanced_accuracy:.3f} to {kept.balanced_accuracy:.3f} (paired p {fall:.3f}); look at"
            " the letter shares before trusting any gain"
        )
    return warnings


def accuracy_change_p_value(base: HeldOutMeasurement, kept: HeldOutMeasurement) -> float | None:
    """Two-sided p of a change of balanced accuracy, row by row on the same rows; None where the rows are not
    known.

    The score test of a mean over strata, the strata being the key's letters: under no change a changed row
    goes either way alike.
    """
    if not base.predictions or base.answers != kept.answers:
        return None
    from scipy.special import ndtr

    letters = sorted(set(base.answers))
    change, variance = 0.0, 0.0
    for letter in letters:
        rows = [
            (a == letter, b == letter)
            for key, a, b in zip(base.answers, base.predictions, kept.predictions, strict=True)
            if key == letter
        ]
        change += sum(after - before for before, after in rows) / len(rows) / len(letters)
        variance += sum(after != before for before, after in rows) / (len(rows) * len(letters)) ** 2
    return 1.0 if variance == 0 else float(2 * ndtr(-abs(change) / variance**0.5))


def selection_notes(
    base: HeldOutMeasurement, kept: HeldOutMeasurement, measured: int, keep: str
) -> list[str]:
    """What choosing the best of several measurements means for its numbers; the base takes part
    in the choice.
    """
    notes = []
    if not is_better(kept, base, keep):
        notes.append(
            f"the base wins: none of {measured} measurements on the {kept.num_rows} held-out rows was better"
            f" than the base (loss {base.loss:.4f} against {kept.loss:.4f}, accuracy {base.accuracy:.3f}"
            f" against {kept.accuracy:.3f}); the best adapter was kept all the same"
        )
    elif measured > 1:
        notes.append(
            f"accuracy {kept.accuracy:.3f} is that of the best of {measured} measurements on the same"
            f" {kept.num_rows} rows: the best of several is optimistic, so compare the adapter with the base"
            " on rows that did not choose it"
        )
    return notes


def is_better(new: HeldOutMeasurement, best: HeldOutMeasurement | None, keep: str) -> bool:
    """Whether ``new`` replaces ``best``: lower loss, or higher accuracy (ties: lower loss)."""
    if best is None:
        return True
    if keep == "best-accuracy":
        return (new.accuracy, -new.loss) > (best.accuracy, -best.loss)
    return new.loss < best.loss
