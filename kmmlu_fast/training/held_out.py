"""Measurements on the held-out rows, and how two of them compare.

In: letters and a loss, or two ``HeldOutMeasurement``s. Out: a ``HeldOutMeasurement``; which one is better;
warnings. Knows nothing of models, logs or training.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS

COLLAPSE_SHARE = 0.60  # of the held-out predictions on one letter


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


def collapse_warnings(base: HeldOutMeasurement, kept: HeldOutMeasurement) -> list[str]:
    """Warnings about what the kept adapter does to the predicted letters."""
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
            f" {base.balanced_accuracy:.3f} to {kept.balanced_accuracy:.3f} (paired p {fall:.3f}); check the"
            " letter shares before trusting any gain"
        )
    return warnings


def accuracy_change_p_value(base: HeldOutMeasurement, kept: HeldOutMeasurement) -> float | None:
    """Two-sided p of a change of balanced accuracy, paired by row; None if the rows' letters are unknown.

    The score test of a mean over strata (the key's letters): under the null hypothesis, a changed row is as
    likely to become right as wrong.
    """
    if not base.predictions or base.answers != kept.answers:
        return None
    from scipy.special import ndtr

    letters = sorted(set(base.answers))
    change, variance = 0.0, 0.0
    rows = list(zip(base.answers, base.predictions, kept.predictions, strict=True))
    for letter in letters:
        changes = [(after == key) - (before == key) for key, before, after in rows if key == letter]
        change += sum(changes) / len(changes) / len(letters)
        variance += sum(map(abs, changes)) / (len(changes) * len(letters)) ** 2
    return 1.0 if variance == 0 else float(2 * ndtr(-abs(change) / variance**0.5))


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
