"""All results about some runs in one object, from which everything shown, written or exported is made.

In: loaded runs, settings, the dataset's frame if known. Out: ``ReportData``, computed once. Knows nothing of
words, tables or files (apart from the comparisons that ``pairs`` logs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import polars as pl

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.exam_comparison import ExamRow
from kmmlu_fast.analysis.headline import Headline, compute_headline
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.key_audit import MIN_RUNS, KeyAudit, audit_key
from kmmlu_fast.analysis.ranking import RankInterval, rank_runs
from kmmlu_fast.analysis.recipes import RecipeEffect
from kmmlu_fast.reporting.inputs import select_exam_runs
from kmmlu_fast.reporting.pairs import (
    Refused,
    compare_all_strictly,
    compare_all_with_base,
    compare_exams,
    compare_recipe,
)
from kmmlu_fast.runs.run import Run, refuse_early_stopped_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Runs of one exam, the base first, and their comparisons; the other exams in ``exams``."""

    runs: list[Run]
    settings: ComparisonSettings
    pairs: list[PairComparison]
    headlines: list[Headline]  # a row per run, in the runs' order
    refused: list[Refused] = field(default_factory=list)
    recipes: list[RecipeEffect] = field(default_factory=list)
    exams: list[ExamRow] = field(default_factory=list)  # [] if all runs are of one exam
    others: list[Run] = field(default_factory=list)  # runs of the other exams
    questions: pl.DataFrame | None = None  # the dataset's frame: texts, human accuracy
    key_audit: KeyAudit | None = None
    ranks: list[RankInterval] = field(default_factory=list)  # [] for fewer than three runs with answers

    @property
    def base(self) -> Run:
        """The run that the others are compared with."""
        return self.runs[0]

    @property
    def focus(self) -> PairComparison | None:
        """The leading comparison."""
        return self.pairs[0] if self.pairs else None

    @property
    def answered(self) -> list[Run]:
        """The runs that have answers, not only scores."""
        return [run for run in self.runs if run.predictions is not None]


def report_data_from_pairs(
    runs: list[Run], settings: ComparisonSettings, pairs: list[PairComparison]
) -> ReportData:
    """``ReportData`` of existing comparisons."""
    return ReportData(
        runs=runs,
        settings=settings,
        pairs=pairs,
        headlines=[compute_headline(run, settings.overlap, settings.sizes) for run in runs],
        ranks=rank_runs(runs, {pair.second: pair.p_holm for pair in pairs}),
    )


def collect_report_data(
    runs: Sequence[Run],
    settings: ComparisonSettings,
    questions: pl.DataFrame | None = None,
    *,
    exam: str | None = None,
    groups: Mapping[str, list[Run]] | None = None,
    strictly: bool = False,
    audit: bool | None = None,
) -> ReportData:
    """Compare ``runs``, the base first: those of ``exam`` (default: the first run's) pair by pair, the others
    in the table of exams.

    ``groups``: recipes, name -> runs of several seeds. ``strictly``: as ``compare_all_strictly``. ``audit``:
    check the key too; default: if there are enough runs.
    """
    shown = select_exam_runs(list(runs), exam)
    refuse_early_stopped_runs(shown)
    enough = len(shown) >= MIN_RUNS if audit is None else audit
    with ThreadPoolExecutor(1) as beside:  # much of both is polars, which does not hold Python's lock
        key_audit = beside.submit(audit_key, shown, questions) if enough else None
        pairs, refused = (compare_all_strictly if strictly else compare_all_with_base)(shown, settings)
        return replace(
            report_data_from_pairs(shown, settings, pairs),
            refused=refused,
            recipes=[compare_recipe(name, shown[0], members) for name, members in (groups or {}).items()],
            exams=compare_exams(runs, settings, shown[0].exam),
            others=[run for run in runs if run.exam != shown[0].exam],
            questions=questions,
            key_audit=None if key_audit is None else key_audit.result(),
        )
