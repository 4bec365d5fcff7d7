"""The faults of an artefact that are read exactly from its files: settings, tokenizer, template, weights.

In: comparisons of texts and of weights with those of the base and adapter. Out: ``Cause``s. A change that
rounding lost is no fault of the files: the letters say if it matters (``diagnosis``). Knows nothing of
answers or engines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

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
SLOPE_TOLERANCE = 0.1
_ON_GRID = 0.1  # of a type's allowed rounding
_TELLING = 0.2  # share of a module's change that rounding must keep for its scale to be known
_FOUR_BIT = (0.05, 0.2)
# Causes that explain whatever the letters show.
WEIGHT_CAUSES = frozenset(
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


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an artefact differs: a stable name, and a phrase after "because"."""

    name: str
    phrase: str


def find_text_causes(
    texts: TextComparison | None, settings: Sequence[str], initialisation: str
) -> list[Cause]:
    """Faults of the adapter's declaration, the settings, the tokenizer and the template."""
    causes = []
    if initialisation:
        causes.append(
            Cause(
                "pissa",
                f"the adapter was initialised with {initialisation}, so it belongs to other base"
                " weights"
                " than the published ones: convert it when saving (PEFT"
                " path_initial_model_for_weight_conversion)",
            )
        )
    if settings:
        causes.append(Cause("settings", f"settings differ: {', '.join(settings)}"))
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


def find_weight_causes(weights: WeightComparison | None) -> list[Cause]:
    """Faults of the weights: another base, a part without the adapter, another scale."""
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
    if abs(typical - 1) > SLOPE_TOLERANCE and (common or (is_exact and len(wrong) == len(known))):
        return [scale_cause(typical)]
    if not is_exact:
        return []
    if len(wrong) < len(known) and all(abs(scales[name]) < 0.3 for name in wrong):
        return [
            Cause(
                "missing part", f"the adapter is not applied to {len(wrong)} of {len(known)}: {_names(wrong)}"
            )
        ]
    return [Cause("missing part", f"the adapter is applied with other scales to {_names(wrong)}")]


def scale_cause(slope: float) -> Cause:
    """The adapter is applied with ``slope`` times its scale."""
    if abs(slope) < 0.15:
        return Cause("not applied", "the adapter is not applied")
    if abs(slope - 2) < 0.15:
        return Cause("twice", "the adapter is applied twice")
    return Cause("scale", f"the adapter is applied with {slope:.2f} times its scale (alpha / r)")


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
    return max(SLOPE_TOLERANCE, 4 * _scale_error(each))


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
