"""From measurements to one sentence: the same, equal within a bound, or different, and because of what.

In: an artefact's comparisons of texts, settings, weights, letters and texts. Out: ``ReleaseDiagnosis``.
The causes are ordered: what is read exactly from files comes before what is inferred from answers. A change
that rounding lost is no fault of the files: the letters say if it matters. Knows nothing of engines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kmmlu_fast.shipping.letter_shifts import LetterComparison
from kmmlu_fast.shipping.text_comparison import TextComparison
from kmmlu_fast.shipping.weights import TensorDifference, WeightComparison

# Relative rounding error (root mean square) that a type may have; measured values are half of these.
_ROUNDING = {
    "F32": 0.006,
    "F16": 0.006,
    "BF16": 0.006,
    "Q8_0": 0.02,
    "Q6_K": 0.06,
    "IQ4_XS": 0.2,
    "IQ4_NL": 0.2,
}
_ROUNDING |= {"Q5_0": 0.12, "Q5_1": 0.12, "Q5_K": 0.12, "Q4_0": 0.25, "Q4_1": 0.25, "Q4_K": 0.2}
_ROUNDING |= {"Q3_K": 0.4, "Q2_K": 0.8}
_SAME_NATS = 0.002  # mean KL that rounding to 16 bit explains
_LOST_DIVERGENCE = 0.05  # nats, mean KL from which quantisation is called a loss
_SLOPE_TOLERANCE = 0.1
_ON_GRID = 0.1  # of a type's allowed rounding
_TELLING = 0.2  # share of a module's change that rounding must keep for its scale to be known
_MOSTLY_LOST = 0.5  # share of the change below which no letters excuse the loss
_FOUR_BIT = (0.05, 0.2)


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an artefact differs: a stable name, and a phrase after "because"."""

    name: str
    phrase: str


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
    causes = [*_text_causes(found), *_weight_causes(found)]
    if not any(cause.name in _OF_WEIGHTS for cause in causes):
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
    loss = _lost_change(found)
    return ReleaseDiagnosis(verdict=verdict, sentence=f"{sentence}; {loss}" if loss else sentence, causes=())


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
    return "undecided", (
        f"undecided: equal within {bound:.2f} pp, not yet within {margin_pp:g} ({counted}{near}); ask more"
        " --questions, or allow a wider --margin"
    )


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


# Causes that explain whatever the letters show.
_OF_WEIGHTS = frozenset(
    (
        "not applied",
        "twice",
        "scale",
        "missing part",
        "base",
        "4 bit",
        "tied head",
        "vocabulary",
        "settings",
        "pissa",
    )
)


def _text_causes(found: Measurements) -> list[Cause]:
    causes = []
    if found.initialisation:
        causes.append(
            Cause(
                "pissa",
                f"the adapter was initialised with {found.initialisation}, so it belongs to other base"
                " weights"
                " than the published ones: convert it when saving (PEFT"
                " path_initial_model_for_weight_conversion)",
            )
        )
    if found.settings:
        causes.append(Cause("settings", f"settings differ: {', '.join(found.settings)}"))
    texts = found.texts
    if texts is None:
        return causes
    if texts.bos != "same":
        phrase = f"the begin-of-text token is {texts.bos}"
        if texts.bos == "added":
            phrase = "it begins every text with a token that the reference does not put there"
        causes.append(Cause("bos", phrase))
    if texts.vocabulary:
        causes.append(
            Cause(
                "tokens",
                f"its tokenizer has {texts.vocabulary[1]} tokens, the reference {texts.vocabulary[0]}",
            )
        )
    elif texts.different:
        causes.append(
            Cause(
                "tokenizer",
                f"its tokenizer gives other ids for {texts.different} of {texts.texts} texts, such as"
                f" {texts.example!r}",
            )
        )
    templates = {
        "lost": "the chat template is lost",
        "other": "its chat template is another one",
        "thinking": "its chat template treats the thinking switch differently",
    }
    if texts.template in templates:
        causes.append(Cause("template", templates[texts.template]))
    if texts.missing_stops:
        causes.append(Cause("stop", f"the stop token {', '.join(texts.missing_stops)} is missing"))
    return causes


def _weight_causes(found: Measurements) -> list[Cause]:
    weights = found.weights
    if weights is None:
        return []
    if weights.rows:
        return [Cause("vocabulary", f"its embedding has {weights.rows[1]} rows, the base {weights.rows[0]}")]
    if weights.shapes:
        return [Cause("base", f"it was made from another base: {weights.shapes[0]} has another shape")]
    if weights.absent:
        return [Cause("missing part", f"it has no {_names(weights.absent)}")]
    causes = []
    if weights.extra_head:
        causes.append(Cause("tied head", "the base's head is tied to its embedding, and here it has its own"))
    other = [each for each in weights.unchanged if each.residual > _allowed(each)]
    coarse = [each for each in weights.changed if each.residual > _allowed(each)]
    matrices = [each for each in other if "norm" not in each.name and "bias" not in each.name]
    heads = [each for each in matrices if "lm_head" in each.name or "embed_tokens" in each.name]
    if not heads and len(other) == len(matrices) and _are_four_bit(coarse):
        typical = statistics.median(each.residual for each in coarse)
        phrase = f"it was merged into 4-bit weights (rounded by {typical:.0%} although stored in 16 bit)"
        return [*causes, Cause("4 bit", phrase), *_slope_causes(weights.changed)]
    if coarse or len(other) > len(heads):
        names = _names(_names_of([*other, *coarse]))
        return [*causes, Cause("base", f"it was made from another base or revision: {names}")]
    if heads and not weights.extra_head:
        phrase = f"{heads[0].name} is not the base's, and the adapter does not change it"
        causes.append(Cause("tied head", phrase))
    return [*causes, *_slope_causes(weights.changed)]


def _slope_causes(changed: Sequence[TensorDifference]) -> list[Cause]:
    """Faults of the scale. What rounding explains is none: 16-bit modules are judged by the scale that gives
    their slope once rounded, quantised ones by whether they share one."""
    known = [each for each in changed if _scale_error(each) < 0.2]
    if not known:
        return []
    scales = {each.name: _scale_of(each) for each in known}
    typical = statistics.median(scales.values())
    wrong = [each.name for each in known if not _is_near(each, 1.0)]
    if not wrong:
        return []
    # A base whose weights lie on the type's grid (unpacked from 4 bit) is rounded back to them.
    is_exact = all(each.is_exact for each in known)
    common = sum(abs(_scale_of(each) - typical) <= _tolerance(each) for each in known) >= 0.9 * len(known)
    if abs(typical) < 0.15 and not is_exact and _lie_on_grid(known):
        return []
    if abs(typical - 1) > _SLOPE_TOLERANCE and (common or (is_exact and len(wrong) == len(known))):
        return [_scale_cause(typical)]
    if not is_exact:
        return []
    if len(wrong) < len(known) and all(abs(scales[name]) < 0.3 for name in wrong):
        return [
            Cause(
                "missing part", f"the adapter is not applied to {len(wrong)} of {len(known)}: {_names(wrong)}"
            )
        ]
    return [Cause("missing part", f"the adapter is applied with other scales to {_names(wrong)}")]


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


def _scale_cause(slope: float) -> Cause:
    if abs(slope) < 0.15:
        return Cause("not applied", "the adapter is not applied")
    if abs(slope - 2) < 0.15:
        return Cause("twice", "the adapter is applied twice")
    return Cause("scale", f"the adapter is applied with {slope:.2f} times its scale (alpha / r)")


def _letter_causes(found: Measurements, weights_are_right: bool) -> list[Cause]:
    letters = found.letters
    if letters is None:
        return []
    if weights_are_right and _loses_effect(found, letters):
        return [_loss_cause(found)]
    if found.quantisation and letters.divergence >= _LOST_DIVERGENCE and weights_are_right:
        return [_loss_cause(found)]
    if letters.slope is not None and not weights_are_right and _tells_scale(found, letters):
        return [_scale_cause(letters.slope)]
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
    if letters.slope_low - _SLOPE_TOLERANCE <= 1 <= letters.slope_high + _SLOPE_TOLERANCE + noise:
        return False
    if letters.divergence < _SAME_NATS and found.quantisation and 0.15 <= abs(slope) <= 1.3:
        return False
    across = max(0.0, letters.difference**2 - ((1 - slope) * shift) ** 2)  # not along the reference's shift
    return math.sqrt(across) < 0.5 * shift or abs(slope) < 0.15 or slope > 1.3


def _loses_effect(found: Measurements, letters: LetterComparison) -> bool:
    """Whether rounding took a part of the adapter's effect that matters beside the whole of it."""
    kept = found.weights.kept if found.weights else None
    mostly_lost = kept is not None and kept.share < _MOSTLY_LOST
    less = letters.slope is not None and letters.slope_high < 1 - _SLOPE_TOLERANCE
    if letters.divergence < _SAME_NATS:
        return (less and bool(_lost_change(found))) or (mostly_lost and letters.slope is None)
    return mostly_lost or (less and bool(found.quantisation or _lost_change(found)))


def _loss_cause(found: Measurements) -> Cause:
    """Quantisation's, or 16-bit rounding's: what is left of the adapter in weights and letters."""
    letters, lost, left = found.letters, _lost_change(found), ""
    assert letters is not None
    if letters.slope is not None:
        left = (
            f"; {100 * letters.slope:.0f} % of the adapter's effect on the letters is left"
            f" ({100 * letters.slope_low:.0f} to {100 * letters.slope_high:.0f} %)"
        )
    if found.quantisation:
        start = lost or f"of quantisation loss ({found.quantisation})"
        return Cause("quantisation", f"{start}{left}; {_loss_phrase(found)}")
    return Cause("rounding", f"{lost}{left}; {_loss_phrase(found)}")


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


def _are_four_bit(differences: Sequence[TensorDifference]) -> bool:
    """Whether the rounding is that of 4-bit weights: nf4's is about 9 % of a matrix."""
    low, high = _FOUR_BIT
    return bool(differences) and all(low < each.residual < high and each.is_exact for each in differences)


def _scale_of(each: TensorDifference) -> float:
    return float((each.slope if each.scale is None else each.scale) or 0.0)


def _scale_error(each: TensorDifference) -> float:
    """The standard error of a module's scale; infinite if rounding leaves too little to tell."""
    if each.slope is None or each.kept < _TELLING:
        return math.inf
    return each.slope_error / each.kept


def _lie_on_grid(differences: Sequence[TensorDifference]) -> bool:
    """Whether the base's weights lie on the quantised types' own grids: rounding hardly moves them."""
    return statistics.median(each.residual / _allowed(each) for each in differences) < _ON_GRID


def _tolerance(each: TensorDifference) -> float:
    return max(_SLOPE_TOLERANCE, 4 * _scale_error(each))


def _is_near(each: TensorDifference, scale: float) -> bool:
    """Whether the module holds ``scale`` times the change, in full or as far as rounding lets it. In full:
    a merge into a finer base, rounded once, loses nothing on average."""
    assert each.slope is not None
    return min(abs(_scale_of(each) - scale), abs(each.slope - scale)) <= _tolerance(each)


def _allowed(each: TensorDifference) -> float:
    return _ROUNDING.get(each.stored_as, math.inf)


def _names_of(differences: Sequence[TensorDifference]) -> list[str]:
    return [each.name for each in sorted(differences, key=lambda each: -each.residual)]


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(name.removesuffix(".weight") for name in names[:2]) + more
