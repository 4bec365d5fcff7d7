"""Several exams, several model states: accuracy above chance, and what each state gained or lost by exam.

In: runs of any exams. Out: ``ExamRow``s and ``ExamChanges``s, numbers only. States of a model are
distinguished by the adapter's name; the first state of an exam is its base. Knows nothing of words or tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kmmlu_fast.analysis.accuracy import above_chance, chance_level
from kmmlu_fast.analysis.headline import compute_headline
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings, HeadlineComparison, compare_headline
from kmmlu_fast.analysis.paired import Outcome, adjust_p_values
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True)
class ExamState:
    """One model state on one exam. ``pair``: against the exam's base; None for the base itself, or if the two
    cannot be compared.
    """

    name: str
    accuracy: float  # over questions, 0-1
    corrected: float  # above chance: 0 = guessing evenly, 1 = all right
    pair: HeadlineComparison | None = None
    p_holm: float | None = None  # of the pair's micro difference, corrected over the whole table

    @property
    def change(self) -> int:
        """1 better, -1 worse, 0 no significant difference from the base."""
        if self.pair is None or self.p_holm is None or not self.pair.micro.significant_at(self.p_holm):
            return 0
        return 1 if self.pair.micro.difference > 0 else -1

    @property
    def outcome(self) -> Outcome | None:
        """What is shown of the pair, by the table's corrected p; None without a pair."""
        if self.pair is None:
            return None
        if self.change:
            return "better" if self.change > 0 else "worse"
        return "equal" if self.pair.equal else "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamRow:
    """One exam and every state that was evaluated on it."""

    exam: str
    title: str
    questions: int
    chance: float  # accuracy of guessing evenly, 0-1
    states: tuple[ExamState, ...]
    left_out: int = 0  # further runs of these states, with other settings


@dataclass(frozen=True, slots=True)
class ExamChanges:
    """Titles of the exams on which one state became better or worse."""

    state: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    exams: int  # on which it could be compared


def group_runs_by_exam(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by exam, exams in order of appearance; names are short and distinct within each."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.exam, []).append(run)
    if len(groups) > 1:  # else the names are short already
        for exam, group in groups.items():
            from kmmlu_fast.runs.loading import short_run_names  # and with it every reader of foreign files

            names = short_run_names(group)
            groups[exam] = [replace(run, name=name) for run, name in zip(group, names, strict=True)]
    return groups


def exam_rows(runs: Sequence[Run], settings: ComparisonSettings, focus: str | None = None) -> list[ExamRow]:
    """One row per exam. Differences are tested exam by exam, and corrected (Holm) over the whole table.

    If a state has several runs of an exam (for example, one with option rotations), the first counts.
    ``focus``: the exam to which the settings' subject sizes and questions belong; default the first run's.
    """
    groups = group_runs_by_exam(runs)
    focus = focus or next(iter(groups), None)
    settings = replace(settings, different_prompts=True)
    without_sizes = replace(settings, sizes={}, questions=None)
    rows = []
    for exam, group in groups.items():
        base = group[0]
        chance = 0.25 if base.predictions is None else chance_level(base.predictions)
        run_by_state: dict[str, Run] = {}
        for run in group:
            run_by_state.setdefault(_state_name(run), run)
        used = settings if exam == focus else without_sizes
        states = tuple(_make_exam_state(run, base, chance, used) for run in run_by_state.values())
        rows.append(
            ExamRow(
                exam=exam,
                title=base.exam_title,
                questions=base.total,
                chance=chance,
                states=states,
                left_out=len(group) - len(states),
            )
        )
    return adjust_exam_p_values(rows)


def _state_name(run: Run) -> str:
    return run.state if run.kind == "run" else run.name


def _make_exam_state(run: Run, base: Run, chance: float, settings: ComparisonSettings) -> ExamState:
    # Subjects are weighted by their full sizes, as in the comparison.
    micro = compute_headline(run, sizes=settings.sizes).micro
    state = ExamState(_state_name(run), micro, above_chance(micro, chance))
    if run is base:
        return state
    try:
        return replace(state, pair=compare_headline(base, run, settings))
    except RunError:
        return state


def adjust_exam_p_values(
    rows: Sequence[ExamRow], spent: Mapping[tuple[str, str], float] | None = None
) -> list[ExamRow]:
    """The rows with p corrected by Holm over every comparison in them: among several adapters on several
    exams, some would look better by chance. ``spent``: (exam, state) -> p corrected for all logged
    comparisons with that exam's base; the larger one counts.
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
    holm = adjust_p_values(np.array(values), "holm")
    adjusted = {
        (exam, name): max(float(p), (spent or {}).get((exam, name), 0.0))
        for (exam, name, _), p in zip(places, holm, strict=True)
    }
    adjusted_rows = []
    for row in rows:
        states = [replace(state, p_holm=adjusted.get((row.exam, state.name))) for state in row.states]
        adjusted_rows.append(replace(row, states=tuple(states)))
    return adjusted_rows


def summarise_exam_changes(rows: Sequence[ExamRow]) -> list[ExamChanges]:
    """What each state gained and lost, states in order of appearance; a state that is never compared with a
    base is left out.
    """
    changes_by_state: dict[str, list[tuple[str, int]]] = {}
    for row in rows:
        for state in row.states:
            if state.pair is not None:
                changes_by_state.setdefault(state.name, []).append((row.title, state.change))
    summaries = []
    for name, changes in changes_by_state.items():
        better = tuple(title for title, change in changes if change > 0)
        worse = tuple(title for title, change in changes if change < 0)
        summaries.append(ExamChanges(name, better, worse, len(changes)))
    return summaries
