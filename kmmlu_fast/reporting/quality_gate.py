"""Comparisons as a gate for pipelines: which of them fail a condition such as "not worse".

In: ``ReportData``, or comparisons of runs that stopped early; a condition. Out: ``GatedComparison``s, a line,
a JUnit file's bytes. Prints and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kmmlu_fast.analysis.paired import Outcome
from kmmlu_fast.core.junit import JunitCase, format_junit
from kmmlu_fast.reporting.early_pairs import EarlyComparison
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.early_stopping import decision_lines
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.reporting.wording.recipe_text import recipe_sentence
from kmmlu_fast.reporting.wording.verdict import headline_sentence

FailIf = Literal["worse", "undecided", "not-better"]

# Each condition includes those before it: a gate that refuses doubt refuses what is worse, too.
_FAILING: dict[FailIf, frozenset[str]] = {
    "worse": frozenset({"worse", "opposed", "not compared"}),
    "undecided": frozenset({"worse", "opposed", "not compared", "undecided"}),
    "not-better": frozenset({"worse", "opposed", "not compared", "undecided", "equal"}),
}
assert set(_FAILING) == set(get_args(FailIf))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedComparison:
    """One comparison, what it shows, and the sentence that says so."""

    name: str
    outcome: Outcome | Literal["not compared"]
    sentence: str

    def fails(self, condition: FailIf) -> bool:
        """Whether the condition is met, so that the gate closes."""
        return self.outcome in _FAILING[condition]


def gated_comparisons(report: ReportData, t: Translator) -> list[GatedComparison]:
    """Every pair, recipe, other exam's pair and refused run of a report."""
    base = report.base.name
    gated = [
        GatedComparison(
            name=f"{pair.second} against {pair.first}",
            outcome=pair.outcome,
            sentence=headline_sentence(pair, t),
        )
        for pair in report.pairs
    ]
    gated += [
        GatedComparison(
            name=f"{recipe.name} against {recipe.first}",
            outcome=recipe.outcome(report.settings.margin),
            sentence=recipe_sentence(recipe, t),
        )
        for recipe in report.recipes
    ]
    gated += [
        GatedComparison(name=f"{name} against {base}", outcome="not compared", sentence=why)
        for name, why in report.refused
    ]
    return [*gated, *_other_exams(report, t)]


def _other_exams(report: ReportData, t: Translator) -> list[GatedComparison]:
    """The states' pairs on the exams that are out of focus, by the table's corrected p."""
    gated = []
    for row in report.exams:
        for state in row.states[1:]:
            if row.exam == report.base.exam:
                continue
            gated.append(
                GatedComparison(
                    name=f"{row.title}: {state.name} against {row.states[0].name}",
                    outcome=state.outcome or "not compared",
                    sentence="" if state.pair is None else headline_sentence(state.pair, t),
                )
            )
    return gated


def gated_early_comparisons(pairs: Sequence[EarlyComparison], t: Translator) -> list[GatedComparison]:
    """Comparisons of runs that stopped early."""
    return [
        GatedComparison(
            name=f"{pair.second} against {pair.first}",
            outcome=_early_outcome(pair),
            sentence=" ".join(decision_lines(pair, t)),
        )
        for pair in pairs
    ]


def _early_outcome(pair: EarlyComparison) -> Outcome:
    """The decision; a gain that is shown only on questions that overlap training data is undecided."""
    verdict, gap, clean = pair.decision.verdict, pair.overlap_gap, pair.clean
    leaks = gap is not None and gap.significant and gap.value > 0
    if verdict == "better" and leaks and clean is not None and clean.verdict != "better":
        return "undecided"
    return verdict


def gate_line(gated: Sequence[GatedComparison], condition: FailIf) -> str:
    """Whether the gate is open, and which comparisons closed it."""
    failed = [each for each in gated if each.fails(condition)]
    if not failed:
        return f"--fail-if {condition}: passed ({len(gated)} compared)"
    listed = "; ".join(f"{each.name}: {each.outcome}" for each in failed[:5])
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    return f"--fail-if {condition}: failed ({listed}{more})"


def gate_junit_file(gated: Sequence[GatedComparison], condition: FailIf) -> bytes:
    """A JUnit XML file: a test case per comparison."""
    cases = [
        JunitCase(each.name, each.sentence, each.outcome if each.fails(condition) else None) for each in gated
    ]
    return format_junit("kmmlu-fast compare", "compare", cases)
