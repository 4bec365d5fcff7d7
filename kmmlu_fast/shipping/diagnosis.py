"""From measurements to one sentence: the same, equal within a bound, or different, and because of what.

In: an artefact's comparisons of texts, settings, weights, letters and texts. Out: ``ReleaseDiagnosis``.
The causes are ordered: what is read exactly from files (``file_faults``) comes before what is inferred here
from answers. Knows nothing of engines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kmmlu_fast.shipping.file_faults import (
    SLOPE_TOLERANCE,
    WEIGHT_CAUSES,
    Cause,
    find_text_causes,
    find_weight_causes,
    scale_cause,
)
from kmmlu_fast.shipping.letter_shifts import LetterComparison
from kmmlu_fast.shipping.text_comparison import TextComparison
from kmmlu_fast.shipping.weights import WeightComparison

_SAME_NATS = 0.002  # mean KL that rounding to 16 bit explains
_LOST_DIVERGENCE = 0.05  # nats, mean KL from which quantisation is called a loss
_MOSTLY_LOST = 0.5  # share of the change below which no letters excuse the loss


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStatistics:
    """Generated texts: how many ended by themselves, repeat themselves, or show a template's marks."""

    texts: int
    stopped: int
    repeating: int
    with_marks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Everything measured of one artefact; None if it could not be."""

    quantisation: str | None
    initialisation: str = ""  # of the adapter, if it holds W + s·B·A although that changed W
    texts: TextComparison | None = None
    settings: tuple[str, ...] = ()
    weights: WeightComparison | None = None
    letters: LetterComparison | None = None
    english: LetterComparison | None = None
    generated: TextStatistics | None = None
    reference_generated: TextStatistics | None = None
    refused: str = ""  # why it could not be asked
    dataset: str = ""  # --dataset
    available: int = 0  # questions that it has; 0: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDiagnosis:
    """``verdict``: same, equal, differs or undecided. Only the first two are safe to ship."""

    verdict: str
    sentence: str
    causes: tuple[Cause, ...]

    @property
    def is_safe(self) -> bool:
        return self.verdict in ("same", "equal")


def diagnose(found: Measurements, margin_pp: float) -> ReleaseDiagnosis:
    """The verdict. ``margin_pp``: the change of the right answer's share that counts as equal."""
    causes = find_text_causes(found.texts, found.settings, found.initialisation)
    causes += find_weight_causes(found.weights)
    if not any(cause.name in WEIGHT_CAUSES for cause in causes):
        causes += _letter_causes(found, weights_are_right=found.weights is not None)
    causes += _generation_causes(found, causes)
    if found.refused and not causes:
        causes.append(Cause("refused", f"it cannot be asked: {found.refused}"))
    if causes:
        phrases = "; ".join(cause.phrase for cause in causes)
        return ReleaseDiagnosis(
            verdict="differs", sentence=f"differs, because {phrases}", causes=tuple(causes)
        )
    verdict, sentence = _letter_verdict(found, margin_pp)
    if loss := _lost_change(found):
        sentence += f"; {loss}{_describe_effect(found)}"
    return ReleaseDiagnosis(verdict=verdict, sentence=sentence, causes=())


def _letter_verdict(found: Measurements, margin_pp: float) -> tuple[str, str]:
    """The verdict and the sentence of an artefact without a fault."""
    letters = found.letters
    if letters is None:
        return "undecided", "undecided: no letters were compared"
    counted = f"{letters.same_letters} of {letters.questions} letters equal"
    near = _describe_near_ties(letters)
    is_close = letters.divergence < _SAME_NATS and not letters.changed_beyond_ties
    if is_close and not _lost_change(found):
        but = " but for near ties" if near else ""
        return "same", f"the same{but} ({counted}{near}, mean divergence {letters.divergence:.1g} nats)"
    bound = 100 * letters.key_bound
    if bound <= margin_pp:
        return "equal", f"equal within {margin_pp:g} pp (the right answer's share; {counted}{near})"
    shown = math.ceil(100 * bound) / 100  # up: it must not read as the margin
    return "undecided", (
        f"undecided: equal within {shown:.2f} pp, not yet within {margin_pp:g} ({counted}{near});"
        f" {_ask_more(found, letters, margin_pp)}, or allow a wider --margin"
    )


def _ask_more(found: Measurements, letters: LetterComparison, margin_pp: float) -> str:
    """How many questions would bring the bound to the margin, and where to find them."""
    wanted = letters.questions_for(margin_pp / 100)
    number = f"about {wanted:,}" if wanted else "more"
    if found.available and found.available < (wanted or letters.questions + 1):
        has = f"--dataset {found.dataset} has {found.available:,} questions"
        return f"{has}, {number} would tell: give another one"
    return f"ask {number} --questions"


def _describe_near_ties(letters: LetterComparison) -> str:
    """How close the changed letters were, a phrase after a count; empty if none changed."""
    changed = letters.questions - letters.same_letters
    ties = changed - letters.changed_beyond_ties
    if not ties:
        return ""
    others = f"{ties} other{'s' if ties > 1 else ''} within near ties"
    return (
        f", {others}: at most {letters.widest_tie:.2f} nats between the best two, the median of all questions"
        f" is {letters.median_margin:.2f}"
    )


def _lost_change(found: Measurements) -> str:
    """How much of the adapter's change rounding kept, and the way out; empty if enough or not measured."""
    kept = found.weights.kept if found.weights else None
    if found.weights is None or kept is None or kept.is_enough:
        return ""
    if not all(each.is_exact for each in found.weights.changed):
        never = " (rounded away, or never applied)" if kept.share < 0.05 else ""
        return f"after quantisation ({found.quantisation}) the weights hold {kept.describe()}{never}"
    size = found.weights.float32_bytes / 1e9
    return (
        f"16-bit rounding keeps {kept.describe()}: export with --dtype float32 ({size:.1f} GB), serve the"
        " adapter beside its base, or train longer or with a larger scale"
    )


def _letter_causes(found: Measurements, weights_are_right: bool) -> list[Cause]:
    letters = found.letters
    if letters is None:
        return []
    if weights_are_right and _loses_effect(found, letters):
        return [_loss_cause(found)]
    if found.quantisation and letters.divergence >= _LOST_DIVERGENCE and weights_are_right:
        return [_loss_cause(found)]
    if letters.slope is not None and not weights_are_right and _tells_scale(found, letters):
        return [scale_cause(letters.slope)]
    if found.quantisation and letters.divergence >= _LOST_DIVERGENCE:
        return [_loss_cause(found)]
    if not found.quantisation and letters.divergence >= _LOST_DIVERGENCE:
        what = "its answers are those of other weights"
        if not weights_are_right:
            what += " (another base or revision, or far from the adapter's scale)"
        return [Cause("base", f"{what}: {_loss_phrase(found)}")]
    return []


def _tells_scale(found: Measurements, letters: LetterComparison) -> bool:
    """Whether the slope of the letters' shifts, without the weights, shows another scale than the adapter's.

    Rounding of the reference's letters is in its own shift and not in the artefact's, which flattens the
    slope of a right artefact: by at most its share in the difference of the two. Quantisation that is not
    seen in the weights flattens it as well: a small difference says then only what no rounding makes.
    """
    slope, shift = letters.slope or 0.0, letters.reference_shift
    noise = letters.difference**2 / (2 * shift**2)
    if letters.slope_low - SLOPE_TOLERANCE <= 1 <= letters.slope_high + SLOPE_TOLERANCE + noise:
        return False
    if letters.divergence < _SAME_NATS and found.quantisation and 0.15 <= abs(slope) <= 1.3:
        return False
    across = max(0.0, letters.difference**2 - ((1 - slope) * shift) ** 2)  # not along the reference's shift
    return math.sqrt(across) < 0.5 * shift or abs(slope) < 0.15 or slope > 1.3


def _loses_effect(found: Measurements, letters: LetterComparison) -> bool:
    """Whether rounding took a part of the adapter's effect that matters beside the whole of it."""
    kept = found.weights.kept if found.weights else None
    mostly_lost = kept is not None and kept.share < _MOSTLY_LOST
    less = letters.slope is not None and letters.slope_high < 1 - SLOPE_TOLERANCE
    if letters.divergence < _SAME_NATS:
        return (less and bool(_lost_change(found))) or (mostly_lost and letters.slope is None)
    return mostly_lost or (less and bool(found.quantisation or _lost_change(found)))


def _loss_cause(found: Measurements) -> Cause:
    """Quantisation's, or 16-bit rounding's: what is left of the adapter in weights and letters."""
    lost, left = _lost_change(found), _describe_effect(found)
    if found.quantisation:
        start = lost or f"of quantisation loss ({found.quantisation})"
        return Cause("quantisation", f"{start}{left}; {_loss_phrase(found)}")
    return Cause("rounding", f"{lost}{left}; {_loss_phrase(found)}")


def _describe_effect(found: Measurements) -> str:
    """What is left of the adapter's effect on the letters, a phrase after a semicolon; empty if not known."""
    letters = found.letters
    if letters is None or letters.slope is None:
        return ""
    if letters.slope > 1:
        interval = f"{letters.slope_low:.2f} to {letters.slope_high:.2f}"
        return f"; the adapter moves the letters {letters.slope:.2f} times as far ({interval})"
    low, high = 100 * letters.slope_low, 100 * letters.slope_high
    return (
        f"; {100 * letters.slope:.0f} % of the adapter's effect on the letters is left"
        f" ({low:.0f} to {high:.0f} %)"
    )


def _loss_phrase(found: Measurements) -> str:
    letters = found.letters
    assert letters is not None
    text = (
        f"{letters.questions - letters.same_letters} of {letters.questions} letters change"
        f" ({letters.gained} gained, {letters.lost} lost), mean divergence {letters.divergence:.3f} nats"
    )
    if found.english is not None:
        text += f" in Korean, {found.english.divergence:.3f} in English"
    return text


def _generation_causes(found: Measurements, causes: Sequence[Cause]) -> list[Cause]:
    texts, reference = found.generated, found.reference_generated
    if texts is None or reference is None or any(cause.name in ("stop", "template") for cause in causes):
        return []
    if reference.stopped - texts.stopped > max(2, reference.texts // 4) and not causes:
        return [
            Cause(
                "stop",
                f"only {texts.stopped} of {texts.texts} texts end by themselves, {reference.stopped} do"
                " with the"
                " reference",
            )
        ]
    if texts.with_marks - reference.with_marks > 2 and not causes:
        return [Cause("template", f"{texts.with_marks} of {texts.texts} texts show marks of a template")]
    return []
