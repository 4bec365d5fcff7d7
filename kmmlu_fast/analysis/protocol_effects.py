"""One model under several protocols: how far the number moves from one to the next, and what differs.

In: complete runs of one model state, the first leading. Out: a ``ProtocolRow`` per run, numbers only;
RunError if they were not asked the same questions. Each run is compared with the earlier one that differs
from it in the fewest factors, so that a list which changes one thing at a time shows one effect at a time.
Knows nothing of words or declarations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kmmlu_fast.analysis.headline_comparison import ComparisonSettings, compare_headline
from kmmlu_fast.analysis.paired import PairedDifference, adjust_p_values
from kmmlu_fast.analysis.protocol_differences import find_letter_form
from kmmlu_fast.analysis.written_forms import FormSummary, summarise_letter_forms
from kmmlu_fast.runs.run import Run

FACTORS = ("wording", "form", "shots", "output", "answer_rule", "sampling", "setting")
_SAMPLING = ("temperature", "top_p", "num_samples", "max_tokens", "seed", "cot_below")
_SETTINGS = ("dtype", "quantization", "letter_precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolRow:
    """One protocol's numbers; ``change`` against ``reference``, None for the first."""

    name: str
    micro: float
    macro: float
    unparsed: int
    forms: FormSummary | None
    reference: str | None = None
    factors: tuple[str, ...] = ()  # of FACTORS, in which the two differ
    change: PairedDifference | None = None
    p_holm: float | None = None  # corrected for the number of rows

    @property
    def significant(self) -> bool:
        return self.change is not None and self.change.significant_at(self.p_holm)


def compare_protocols(runs: Sequence[Run], names: Sequence[str]) -> list[ProtocolRow]:
    """A row per run, under the protocols' ``names``."""
    rows = []
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        row = ProtocolRow(
            name=name,
            micro=run.micro,
            macro=run.macro,
            unparsed=run.frame["prediction"].null_count(),
            forms=summarise_letter_forms(run.frame),
        )
        if place:
            earlier = min(range(place), key=lambda other: len(find_factors(runs[other], run)))
            settings = ComparisonSettings(different_prompts=True)
            row = replace(
                row,
                reference=names[earlier],
                factors=find_factors(runs[earlier], run),
                change=compare_headline(runs[earlier], run, settings).micro,
            )
        rows.append(row)
    values = [row.change.p_value for row in rows if row.change is not None]
    holm = iter(adjust_p_values(np.array([1.0 if p is None else p for p in values]), "holm").tolist())
    return [row if row.change is None else replace(row, p_holm=next(holm)) for row in rows]


def find_factors(first: Run, second: Run) -> tuple[str, ...]:
    """In what two runs of one model state differ."""
    one, other = _factor_values(first.facts), _factor_values(second.facts)
    one["form"], other["form"] = _scored_form(first), _scored_form(second)
    if one["output"] != other["output"]:  # a text has no scored form, and scored letters no sampling
        for name in ("form", "sampling", "answer_rule"):
            other[name] = one[name]
    return tuple(name for name in FACTORS if one[name] != other[name])


def _factor_values(facts: dict[str, Any]) -> dict[str, Any]:
    decoding = facts.get("decoding") or {}
    return {
        "wording": (facts.get("prompt_style"), facts.get("template_digest")),
        "shots": facts.get("num_fewshot"),
        "output": facts.get("output_type"),
        "answer_rule": (decoding.get("answer_rule"), decoding.get("stop")),
        "sampling": tuple(decoding.get(name) for name in _SAMPLING),
        "setting": tuple(facts.get(name) for name in _SETTINGS),
    }


def _scored_form(run: Run) -> str | None:
    if run.facts.get("output_type") != "multiple_choice":
        return None
    return find_letter_form(run) or ("bare" if run.facts.get("prompt_style") == "chat" else "lm-eval")


def group_by_state(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one exam, grouped by model state; only groups of two protocols or more."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.predictions is None or run.facts.get("model_digest") is None:
            continue
        key = (run.exam, run.facts["model_digest"], run.facts.get("adapter_digest"))
        groups.setdefault(key, []).append(run)
    return [group for group in groups.values() if any(find_factors(group[0], run) for run in group[1:])]
