"""What was found about some runs, in one object: whatever is shown, written or exported is made from it.

In: loaded runs, settings, the dataset's frame where known. Out: ``Findings``, computed once. Knows nothing of
words, tables or files (but for the looks at test that ``comparing`` records).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from kmmlu_fast.analysis.comparison import Comparison, Settings
from kmmlu_fast.analysis.exam_comparison import ExamRow
from kmmlu_fast.analysis.headline import Headline, headline
from kmmlu_fast.analysis.key_audit import MIN_RUNS, KeyAudit, audit_key
from kmmlu_fast.analysis.recipes import Recipe
from kmmlu_fast.reporting.inputs import focused
from kmmlu_fast.reporting.pairs import Refused, compared, compared_strictly, exams_compared, recipe_of
from kmmlu_fast.runs.run import Run, refuse_prefixes


@dataclass(frozen=True, slots=True)
class Findings:
    """Runs of one exam, the base first, and what comparing them gave; in a table, their other exams."""

    runs: list[Run]
    settings: Settings
    pairs: list[Comparison]
    headlines: list[Headline]  # a row a run, in the runs' order
    refused: list[Refused] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    exams: list[ExamRow] = field(default_factory=list)  # [] where all runs are of one exam
    others: list[Run] = field(default_factory=list)  # runs of the other exams
    questions: pl.DataFrame | None = None  # the dataset's frame: texts, human accuracy
    key_audit: KeyAudit | None = None

    @property
    def base(self) -> Run:
        """The run that the others are compared with."""
        return self.runs[0]

    @property
    def focus(self) -> Comparison | None:
        """The comparison that leads."""
        return self.pairs[0] if self.pairs else None

    @property
    def answered(self) -> list[Run]:
        """The runs that have answers, not scores alone."""
        return [run for run in self.runs if run.predictions is not None]


def findings_of(runs: list[Run], settings: Settings, pairs: list[Comparison]) -> Findings:
    """Of comparisons that are made already."""
    return Findings(runs, settings, pairs, [headline(run, settings.overlap, settings.sizes) for run in runs])


def find(
    runs: Sequence[Run],
    settings: Settings,
    questions: pl.DataFrame | None = None,
    *,
    exam: str | None = None,
    groups: Mapping[str, list[Run]] | None = None,
    strictly: bool = False,
    audit: bool | None = None,
) -> Findings:
    """Compare ``runs``, the base first: those of ``exam`` (default: the first run's) pair by pair, the others
    in the table of exams.

    ``groups``: recipes, name -> runs of several seeds. ``strictly``: as ``compared_strictly``. ``audit``:
    look at the key too; default: where there are runs enough.
    """
    shown = focused(list(runs), exam)
    refuse_prefixes(shown)
    pairs, refused = (compared_strictly if strictly else compared)(shown, settings)
    enough = len(shown) >= MIN_RUNS if audit is None else audit
    return replace(
        findings_of(shown, settings, pairs),
        refused=refused,
        recipes=[recipe_of(name, shown[0], members) for name, members in (groups or {}).items()],
        exams=exams_compared(runs, settings, shown[0].exam),
        others=[run for run in runs if run.exam != shown[0].exam],
        questions=questions,
        key_audit=audit_key(shown, questions) if enough else None,
    )
