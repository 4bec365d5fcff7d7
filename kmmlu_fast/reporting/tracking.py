"""Comparisons as rows for experiment trackers (``compare --report-to``).

In: comparisons, complete or stopped early. Out: ``TrackedResult``: shares and differences 0-1, the outcome as
a setting. Knows nothing of the trackers.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.paired import PairedDifference
from kmmlu_fast.machine.trackers import TrackedResult
from kmmlu_fast.reporting.early_pairs import EarlyComparison
from kmmlu_fast.reporting.report_data import ReportData


def tracked_comparisons(report: ReportData) -> list[TrackedResult]:
    """Every pair of the exam in focus."""
    return [_tracked_pair(pair) for pair in report.pairs]


def tracked_early_comparisons(pairs: Sequence[EarlyComparison]) -> list[TrackedResult]:
    """Comparisons of runs that stopped early."""
    results = []
    for pair in pairs:
        decision = pair.decision
        results.append(
            TrackedResult(
                name=f"{pair.second} against {pair.first}",
                numbers={
                    "questions": decision.answers,
                    "difference/low": decision.low,
                    "difference/high": decision.high,
                },
                settings={"first": pair.first, "second": pair.second, "outcome": decision.verdict},
            )
        )
    return results


def _tracked_pair(pair: PairComparison) -> TrackedResult:
    differences: dict[str, PairedDifference | None] = {
        "micro": pair.micro,
        "macro": pair.macro,
        "clean": pair.clean,
        "debiased": pair.debiased,
    }
    numbers: dict[str, float] = {}
    for name, difference in differences.items():
        if difference is None:
            continue
        numbers |= {
            f"difference/{name}": difference.difference,
            f"difference/{name}_low": difference.low,
            f"difference/{name}_high": difference.high,
        }
    counts = {"questions": pair.micro.n, "only_first_right": pair.micro.b, "only_second_right": pair.micro.c}
    numbers |= {name: float(count) for name, count in counts.items()}
    p_value = pair.micro.p_value if pair.p_holm is None else pair.p_holm
    if p_value is not None:
        numbers["p"] = p_value
    for row in pair.subjects.iter_rows(named=True):
        numbers[f"subject/{row['subject']}"] = row["difference"]
    return TrackedResult(
        name=f"{pair.second} against {pair.first}",
        numbers=numbers,
        settings={
            "first": pair.first,
            "second": pair.second,
            "outcome": pair.outcome,
            "margin": pair.margin,
            "population": pair.population,
        },
    )
