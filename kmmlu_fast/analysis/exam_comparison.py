"""Several exams, several model states: accuracy above chance, and what a state gained on one exam and lost
on another.

In: runs of any exams. Out: ``ExamRow``s and ``ExamChanges``s, numbers only. States are told apart by the
adapter's name within a model; the
first state of an exam is its base. Knows nothing of words or tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kmmlu_fast.analysis.accuracy import above_chance, chance_level
from kmmlu_fast.analysis.comparison import ComparisonSettings, PairComparison, compare_pair
from kmmlu_fast.analysis.headline import compute_headline
from kmmlu_fast.analysis.paired import adjust_p_values
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.loading import short_run_names
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True)
class ExamState:
    """One model state on one exam. ``pair``: against the exam's base, None for the base itself or where they
    cannot be compared."""

    name: str
    accuracy: float  # over questions, 0-1
    corrected: float  # above chance: 0 = guessing evenly, 1 = all right
    pair: PairComparison | None = None
    p_holm: float | None = None  # of the pair's micro difference, corrected over all of the table

    @property
    def change(self) -> int:
        """1 better, -1 worse, 0 no significant difference to the base."""
        if self.pair is None or self.p_holm is None or not self.pair.micro.significant_at(self.p_holm):
            return 0
        return 1 if self.pair.micro.difference > 0 else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamRow:
    """One exam and every state that it was asked of."""

    exam: str
    title: str
    questions: int
    chance: float  # accuracy of guessing evenly, 0-1
    states: tuple[ExamState, ...]
    left_out: int = 0  # further runs of these states, under other settings


@dataclass(frozen=True, slots=True)
class ExamChanges:
    """What one state gained and lost, exam by exam (their titles)."""

    state: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    exams: int  # on which it could be compared


def group_runs_by_exam(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by exam, in the order in which the exams come; names short and distinct within each."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.exam, []).append(run)
    if len(found) == 1:  # the names are short already
        return found
    return {
        exam: [replace(run, name=name) for run, name in zip(some, short_run_names(some), strict=True)]
        for exam, some in found.items()
    }


def exam_rows(runs: Sequence[Run], settings: ComparisonSettings, focus: str | None = None) -> list[ExamRow]:
    """A row an exam. Differences are tested exam by exam, and corrected (Holm) over all of the table.

    A state that an exam was asked of twice (with option rotations as well, say) counts by the first of its
    runs. ``focus``: the exam that the settings' subject sizes and questions are of; default the first run's.
    """
    groups = group_runs_by_exam(runs)
    of_focus = replace(settings, different_prompts=True, questions=None)
    rows = []
    for exam, some in groups.items():
        settings = of_focus if exam == (focus or next(iter(groups))) else replace(of_focus, sizes={})
        frame = some[0].predictions
        chance = 0.25 if frame is None else chance_level(frame)
        first: dict[str, Run] = {}
        for run in some:
            first.setdefault(_state_name(run), run)
        states = tuple(_make_exam_state(run, some[0], chance, settings) for run in first.values())
        rows.append(
            ExamRow(
                exam=exam,
                title=some[0].exam_title,
                questions=some[0].total,
                chance=chance,
                states=states,
                left_out=len(some) - len(states),
            )
        )
    return adjust_exam_p_values(rows)


def _state_name(run: Run) -> str:
    return run.state if run.kind == "run" else run.name


def _make_exam_state(run: Run, base: Run, chance: float, settings: ComparisonSettings) -> ExamState:
    name = _state_name(run)
    micro = compute_headline(
        run, sizes=settings.sizes
    ).micro  # subjects by their full sizes, as in the comparison
    found = ExamState(name, micro, above_chance(micro, chance))
    if run is base:
        return found
    try:
        return replace(found, pair=compare_pair(base, run, settings))
    except RunError:
        return found


def adjust_exam_p_values(rows: Sequence[ExamRow], earlier: Sequence[float] = ()) -> list[ExamRow]:
    """The rows with p corrected by Holm over every comparison in them, and over ``earlier`` looks (their p)
    at the same bases: whoever tries several adapters on several exams finds something.
    """
    places = [
        (row.exam, state.name, state.pair.micro.p_value)
        for row in rows
        for state in row.states
        if state.pair is not None
    ]
    if not places:
        return list(rows)
    values = [1.0 if p_value is None else p_value for _, _, p_value in places]
    holm = adjust_p_values(np.array([*values, *earlier]), "holm")
    adjusted = {(exam, name): float(p) for (exam, name, _), p in zip(places, holm, strict=False)}
    return [
        replace(
            row,
            states=tuple(replace(state, p_holm=adjusted.get((row.exam, state.name))) for state in row.states),
        )
        for row in rows
    ]


def summarise_exam_changes(rows: Sequence[ExamRow]) -> list[ExamChanges]:
    """What each state gained and lost, in the order in which the states come; states that are nobody's
    second are left out."""
    names = dict.fromkeys(state.name for row in rows for state in row.states if state.pair is not None)
    found = []
    for name in names:
        own = [
            (row.title, state)
            for row in rows
            for state in row.states
            if state.name == name and state.pair is not None
        ]
        better = tuple(title for title, state in own if state.change > 0)
        worse = tuple(title for title, state in own if state.change < 0)
        found.append(ExamChanges(name, better, worse, len(own)))
    return found
