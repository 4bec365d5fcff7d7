"""From measurements to one sentence: the same, equal within a bound, or different, and because of what.

In: an artefact's comparisons of texts, settings, weights, letters and texts. Out: ``ReleaseDiagnosis``.
The causes are ordered: what is read exactly from files comes before what is inferred from answers. Knows
nothing of engines.
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
    letters = found.letters
    if letters is None:
        return ReleaseDiagnosis(
            verdict="undecided", sentence="undecided: no letters were compared", causes=()
        )
    counted = f"{letters.same_letters} of {letters.questions} letters equal"
    if letters.divergence < _SAME_NATS and not letters.changed_beyond_ties:
        return ReleaseDiagnosis(
            verdict="same",
            sentence=f"the same ({counted}, mean divergence {letters.divergence:.1g} nats)",
            causes=(),
        )
    bound = 100 * letters.key_bound
    if bound <= margin_pp:
        return ReleaseDiagnosis(
            verdict="equal",
            sentence=f"equal within {margin_pp:g} pp (the right answer's share; {counted})",
            causes=(),
        )
    return ReleaseDiagnosis(
        verdict="undecided",
        sentence=(
            f"undecided: equal within {bound:.2f} pp, not yet within {margin_pp:g} ({counted}); ask more"
            " --questions, or allow a wider --margin"
        ),
        causes=(),
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
        causes.append(Cause("bos", f"the begin-of-text token is {texts.bos}"))
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
    known = [each for each in changed if each.slope is not None and each.slope_error < 0.2]
    if not known:
        return []
    slopes = {each.name: float(each.slope or 0.0) for each in known}
    typical = statistics.median(slopes.values())
    wrong = [each.name for each in known if not _is_one(each)]
    if not wrong:
        return []
    if len(wrong) == len(known):
        return [_scale_cause(typical)]
    if not all(each.is_exact for each in known):
        # A base whose weights lie on the type's grid (unpacked from 4 bit) is rounded back to them.
        phrase = f"rounding changes what the adapter adds in {len(wrong)} of {len(known)} modules"
        return [Cause("quantisation", f"of quantisation loss: {phrase}")]
    if abs(typical - 1) < _SLOPE_TOLERANCE and all(abs(slopes[name]) < 0.3 for name in wrong):
        return [
            Cause(
                "missing part", f"the adapter is not applied to {len(wrong)} of {len(known)}: {_names(wrong)}"
            )
        ]
    return [Cause("missing part", f"the adapter is applied with other scales to {_names(wrong)}")]


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
    loss = _loss_phrase(found)
    if found.quantisation and letters.divergence >= _LOST_DIVERGENCE and weights_are_right:
        return [Cause("quantisation", f"of quantisation loss ({found.quantisation}): {loss}")]
    if letters.slope is not None and not weights_are_right and letters.divergence >= _SAME_NATS:
        low, high = letters.slope_low - _SLOPE_TOLERANCE, letters.slope_high + _SLOPE_TOLERANCE
        explained = letters.difference < 0.5 * letters.reference_shift or abs(letters.slope) < 0.15
        if not low <= 1 <= high and (explained or letters.slope > 1.3):
            return [_scale_cause(letters.slope)]
    if found.quantisation and letters.divergence >= _LOST_DIVERGENCE:
        return [Cause("quantisation", f"of quantisation loss ({found.quantisation}): {loss}")]
    if not found.quantisation and letters.divergence >= _LOST_DIVERGENCE:
        return [Cause("base", f"its answers are those of other weights: {loss}")]
    return []


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


def _is_one(each: TensorDifference) -> bool:
    assert each.slope is not None
    return abs(each.slope - 1) <= max(_SLOPE_TOLERANCE, 4 * each.slope_error)


def _allowed(each: TensorDifference) -> float:
    return _ROUNDING.get(each.stored_as, math.inf)


def _names_of(differences: Sequence[TensorDifference]) -> list[str]:
    return [each.name for each in sorted(differences, key=lambda each: -each.residual)]


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(name.removesuffix(".weight") for name in names[:2]) + more
