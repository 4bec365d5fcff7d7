"""The verdicts of all pairs of a report's runs, for the pairs that a reader chooses in the page.

In: ``ReportData``. Out: per base and contender, the headline and cautions as ``compare`` with that base and
the same runs would say them: the same function decides, the page only shows. Knows nothing of HTML.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kmmlu_fast.analysis.headline_comparison import HeadlineComparison, compare_headline, swap_headline
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.reporting.html.sections import change_tone
from kmmlu_fast.reporting.pairs import log_and_correct_pairs
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator, format_points
from kmmlu_fast.reporting.wording.verdict import caution_lines, headline_sentence

PairsByBase = dict[str, dict[str, HeadlineComparison]]


def compare_all_pairs(report: ReportData) -> PairsByBase:
    """Every run with answers against every other one, by base and contender; p corrected for the runs
    compared with that base. The report's own comparisons are taken as they are.
    """
    runs = report.answered
    settings = replace(report.settings, different_prompts=True, intersection=True, overlap=frozenset())
    found: PairsByBase = {run.name: {} for run in runs}
    for place, first in enumerate(runs):
        for second in runs[place + 1 :]:
            try:
                pair = compare_headline(first, second, settings)
            except RunError:  # no question in common
                continue
            found[first.name][second.name] = pair
            found[second.name][first.name] = swap_headline(pair)
    for base in runs:
        others = [run for run in runs if run.name in found[base.name]]
        pairs = log_and_correct_pairs([base, *others], list(found[base.name].values()))
        found[base.name] = {pair.second: pair for pair in pairs}
    if report.base.name in found:
        found[report.base.name] |= {pair.second: pair for pair in report.pairs}
    return found


def pair_verdicts(found: PairsByBase, names: list[str], t: Translator) -> dict[str, dict[str, Any]]:
    """What the page shows of each pair, by the runs' places among ``names``."""
    verdicts: dict[str, dict[str, Any]] = {}
    for first, pairs in found.items():
        verdicts[str(names.index(first))] = {
            str(names.index(second)): {
                "line": headline_sentence(pair, t),
                "cautions": caution_lines(pair, t),
                "tone": change_tone(pair.micro.difference, pair.significant),
                "value": format_points(pair.micro.difference, unit=False),
            }
            for second, pair in pairs.items()
            if second in names
        }
    return verdicts
