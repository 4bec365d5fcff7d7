"""Several exams: the table of exams x model states, and the sentence about forgetting, in both languages.

In: ``ExamRow``s. Out: plain data for the template, a Rich table for the terminal. Knows nothing of how the
numbers are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points

if TYPE_CHECKING:  # eval's summary starts without comparisons
    from kmmlu_fast.analysis.exam_comparison import ExamRow, ExamState


def exam_sentences(rows: Sequence[ExamRow], t: Translator) -> list[str]:
    """One sentence per state: better here, worse there (possible forgetting), or no significant change."""
    lines = []
    from kmmlu_fast.analysis.exam_comparison import summarise_exam_changes

    for change in summarise_exam_changes(rows):
        better, worse = ", ".join(change.better), ", ".join(change.worse)
        if better and worse:
            lines.append(t("forgetting", name=change.state, better=better, worse=worse))
        elif worse:
            lines.append(t("only_worse", name=change.state, worse=worse))
        elif better:
            lines.append(t("only_better", name=change.state, better=better))
        else:
            lines.append(t("exams_unchanged", name=change.state, count=change.exams))
    if left_out := sum(row.left_out for row in rows):
        lines.append(t("exams_left_out", count=left_out))
    return lines


def exams_section(rows: Sequence[ExamRow], focus: str, t: Translator) -> dict[str, Any]:
    """The report's table. ``focus``: title of the exam that the rest of the page is about."""
    names = _state_names(rows)
    return {
        "lines": exam_sentences(rows, t),
        "states": names,
        "rows": [
            {
                "title": row.title,
                "questions": f"{row.questions:,}",
                "chance": format_percent(row.chance, 1),
                "cells": [_state_cell(_find_state(row, name)) for name in names],
            }
            for row in rows
        ],
        "note": t("exams_note", exam=focus),
    }


def _state_names(rows: Sequence[ExamRow]) -> list[str]:
    return list(dict.fromkeys(state.name for row in rows for state in row.states))


def _find_state(row: ExamRow, name: str) -> ExamState | None:
    return next((state for state in row.states if state.name == name), None)


def _state_cell(state: ExamState | None) -> dict[str, str]:
    if state is None:
        return {"value": "", "raw": "", "change": "", "tone": ""}
    return {
        "value": format_percent(state.corrected),
        "raw": format_percent(state.accuracy),
        "change": "" if state.pair is None else format_points(state.pair.micro.difference, unit=False),
        "tone": {1: "up", -1: "down", 0: ""}[state.change],
    }


def exam_terminal_table(rows: Sequence[ExamRow], t: Translator) -> Table:
    """Exams x states for the terminal: accuracy above chance, plain accuracy in brackets, and the difference
    from the base, with * if significant."""
    names = _state_names(rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(Text(t("above_chance")))
    for name in names:
        table.add_column(Text(name), justify="right")
    for row in rows:
        cells = [_state_cell(_find_state(row, name)) for name in names]
        texts = [Text(_format_cell(cell), style=_STYLES[cell["tone"]]) for cell in cells]
        table.add_row(Text(f"{row.title} ({row.questions:,})"), *texts)
    return table


_STYLES = {"up": "green", "down": "red", "": ""}


def _format_cell(cell: dict[str, str]) -> str:
    if not cell["value"]:
        return "–"
    mark = "*" if cell["tone"] else ""
    return f"{cell['value']} ({cell['raw']}) {cell['change']}{mark}".rstrip()


def exam_table_json(rows: Sequence[ExamRow], t: Translator) -> dict[str, Any]:
    """The table as JSON-able data; shares and differences 0-1."""
    return {
        "sentences": exam_sentences(rows, t),
        "exams": [
            {
                "exam": row.exam,
                "title": row.title,
                "questions": row.questions,
                "chance": row.chance,
                "states": [
                    {
                        "name": s.name,
                        "accuracy": s.accuracy,
                        "above_chance": s.corrected,
                        "p_holm": s.p_holm,
                        "difference": None if s.pair is None else s.pair.micro.difference,
                    }
                    for s in row.states
                ],
            }
            for row in rows
        ],
    }
