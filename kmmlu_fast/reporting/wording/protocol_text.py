"""One model under several protocols, in words: a table, and a sentence per step.

In: runs or ``ProtocolRow``s, a translator. Out: rows and sentences. Knows nothing of how they are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kmmlu_fast.analysis.protocol_effects import ProtocolRow, compare_protocols, group_by_state
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points, p_value_clause
from kmmlu_fast.runs.run import Run

PROTOCOL_COLUMN_KEYS = (
    *("protocol", "short_micro", "short_macro", "mass", "unparsed", "compared_with", "differs_by"),
    *("difference", "interval"),
)


def protocol_table_rows(rows: Sequence[ProtocolRow], t: Translator) -> list[list[str]]:
    """A row of cells per protocol."""
    return [_protocol_cells(row, t) for row in rows]


def _protocol_cells(row: ProtocolRow, t: Translator) -> list[str]:
    mass = "–" if row.forms is None else format_percent(row.forms.scored_mass, 1)
    cells = [row.name, format_percent(row.micro), format_percent(row.macro), mass, f"{row.unparsed:,}"]
    if row.change is None:
        return [*cells, "", "", "", ""]
    low, high = (format_points(value, unit=False) for value in (row.change.low, row.change.high))
    mark = "*" if row.significant else ""
    change = format_points(row.change.difference, unit=False) + mark
    return [*cells, row.reference or "", _factor_text(row, t), change, f"{low} … {high}"]


def _factor_text(row: ProtocolRow, t: Translator) -> str:
    return ", ".join(t(f"factor_{name}") for name in row.factors) or t("factor_none")


def protocol_sentences(rows: Sequence[ProtocolRow], t: Translator) -> list[str]:
    """A sentence per step: what differs, and by how much the number moves."""
    lines = []
    for row in rows:
        if row.change is None:
            continue
        values = {
            "name": row.name,
            "reference": row.reference or "",
            "factors": _factor_text(row, t),
            "diff": format_points(row.change.difference),
            "low": format_points(row.change.low, unit=False),
            "high": format_points(row.change.high, unit=False),
            "p": p_value_clause(row.p_holm),
        }
        key = "protocol_one" if len(row.factors) == 1 else "protocol_several"
        lines.append(t(key if row.significant else "protocol_not_shown", **values))
    return lines


@dataclass(frozen=True, slots=True)
class ProtocolView:
    """One model state's table and sentences."""

    name: str
    rows: list[list[str]]
    lines: list[str]


def protocol_section(runs: Sequence[Run], t: Translator) -> list[ProtocolView]:
    """The report's section: a view per model state with several protocols; [] if there is none."""
    shown = []
    for group in group_by_state(runs):
        try:
            rows = compare_protocols(group, _protocol_names(group))
        except RunError:  # over other questions: the report says so where it compares them
            continue
        view = ProtocolView(group[0].name, protocol_table_rows(rows, t), protocol_sentences(rows, t))
        shown.append(view)
    return shown


def _protocol_names(runs: Sequence[Run]) -> list[str]:
    """The protocols' names if every run was asked under another one, else the runs' own."""
    named = [str((run.config.get("config") or {}).get("protocol") or "") for run in runs]
    return named if all(named) and len(set(named)) == len(named) else [run.name for run in runs]
