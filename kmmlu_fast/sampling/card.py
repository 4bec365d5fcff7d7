"""The data card of a training file, and the plan as a table on the terminal.

In: the plan (``sampling.plan``) and a dict of facts (``sampling.job.data_card_facts``). Out: markdown, and a
rich table on stdout. Knows nothing of how either was made. Contains ids but no question texts, because the
source's licence forbids edited copies.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import polars as pl

from kmmlu_fast.core.console import terminal_width, wrap_line
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data.default_exam import DEFAULT_DATASET, DEFAULT_EXAM

HUB_LICENCES = {
    "sample": "CC0-1.0 (packaged sample, invented questions)",
    DEFAULT_DATASET: "cc-by-nd-4.0 (KMMLU, HAERAE-HUB)",
}
_COLUMNS = (
    "subject",
    "total",
    "errors",
    "accuracy",
    "shrunk",
    "low",
    "high",
    "weak",
    "weight",
    "target",
    "quota",
    "supply",
    "drawn",
    "shortfall",
    "received",
)
_EDITED = "; internal use with attribution: this edited selection must not be published"
# Columns for a narrow terminal, most important first; the data card and the plan's parquet have all.
_KEY = ("subject", "drawn", "shrunk", "accuracy", "errors", "weak", "quota", "supply", "total", "weight")
_NOT_SUMMED = ("accuracy", "shrunk", "low", "high", "weak", "weight")


def _format_cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.2f}" if name in ("target", "low", "high") else f"{value:.4f}"
    return str(value) if value or name not in ("shortfall", "received") else ""


def source_licence_text(dataset: str, exam: dict[str, Any] | None = None) -> str:
    """The source's licence as its dataset card states it (for other exams than KMMLU: their declaration)."""
    if exam is not None and exam["name"] != DEFAULT_EXAM:
        licence = f"{exam['licence']}, as the exam's declaration says"
    elif dataset in HUB_LICENCES:
        licence = HUB_LICENCES[dataset]
    else:
        card = expand_path(dataset, "--dataset") / "README.md"
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        stated = re.search(r"(?m)^license:\s*(\S+)", text)
        if stated is None:
            return "not stated by the dataset; find it out before this file is shared"
        licence = f"{stated[1]}, as the dataset's README says"
    return licence + (_EDITED if "-nd" in licence.lower() else "")


def print_sampling_plan(plan: pl.DataFrame, facts: dict[str, Any]) -> None:
    """Print the plan, most rows first, and what the leakage guard did."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{facts['strategy']}: {facts['rows']} rows, seed {facts['seed']}")
    rows = list(plan.sort(["drawn", "subject"], descending=[True, False]).iter_rows(named=True))
    rows.append({name: _column_total(plan, name) for name in _COLUMNS})
    # Piped output is not a terminal: wide enough that no column is cut.
    width = terminal_width() if sys.stdout.isatty() else 200
    shown = _fitting_columns(rows, width)
    for name in shown:
        table.add_column(name, justify="left" if name in ("subject", "weak") else "right", no_wrap=True)
    for row in rows[:-1]:
        table.add_row(*(_format_cell(name, row[name]) for name in shown))
    table.add_section()
    table.add_row(*(_format_cell(name, rows[-1][name]) for name in shown))
    Console(file=sys.stdout, width=width).print(table)
    for line in leakage_guard_lines(facts):
        print(wrap_line(line, width))


def _fitting_columns(rows: list[dict[str, Any]], width: int) -> list[str]:
    """The columns that fit into ``width`` characters: all, or the most important, in the table's order."""
    needs = {}
    for name in _COLUMNS:
        cells = [_format_cell(name, row[name]) for row in rows]
        needs[name] = 3 + max(map(len, [name, *cells]))
    if sum(needs.values()) < width:
        return list(_COLUMNS)
    kept, used = [], 1
    for name in _KEY:
        if used + needs[name] <= width:
            kept.append(name)
            used += needs[name]
    return [name for name in _COLUMNS if name in kept]


def _column_total(plan: pl.DataFrame, name: str) -> Any:
    if name == "subject":
        return "all"
    return None if name in _NOT_SUMMED else plan[name].sum()


def leakage_guard_lines(facts: dict[str, Any]) -> list[str]:
    """The size of the pool and what was left out of it and why, one line each."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in facts["overlapping_kinds"].items()) or "none"
    letters = ", ".join(f"{letter} {count}" for letter, count in facts["letters"].items())
    return [
        f"pool: {facts['pool']} train rows; drawn from {facts['drawn_from']}",
        f"dropped: {facts['overlapping']} rows that overlap test or dev (pairs by kind: {kinds})",
        f"dropped: {facts['repeated']} repeats of another train row, {facts['conflicting']} whose repeats"
        " have another key",
        f"excluded: {facts['excluded']} questions that the source run was over",
        f"answer letters: {letters}; {facts['kept_order']} rows kept their option order",
        *_rationale_lines(facts),
    ]


def _rationale_lines(facts: dict[str, Any]) -> list[str]:
    counts = facts["rationales"]
    if not counts:
        return []
    return [
        f"rationales: {counts['with']} of {counts['asked']} rows have one that reached the key in"
        f" {counts['samples']} attempts (model {counts['model']}); {counts['without']} had none and were"
        f" {counts['became']}"
    ]


def data_card(facts: dict[str, Any], plan: pl.DataFrame) -> str:
    """The data card, markdown: where the rows come from, what was left out, the licence, the plan."""
    source = "none"
    if facts["source"]:
        model = facts["source_model"] or "not named"
        source = f"{facts['source']} (model {model}, split {facts['source_split']})"
    revision = f", revision {facts['dataset_revision']}" if facts["dataset_revision"] else ""
    share = f", weak share {facts['weak_share']}" if facts["strategy"] == "strategic" else ""
    lines = [
        f"# Data card: {facts['file']}",
        "",
        f"- rows: {facts['rows']} ({facts['questions']} distinct questions, {facts['repeats']} repeats"
        " under another option order)",
        "- format: Alpaca JSONL (instruction, input, output) with answer, subject, source_id, strategy,"
        " option_order, repeat, rationale",
        f"- exam: {facts['exam']['title']} (its declaration on training: {facts['exam']['training']})",
        f"- dataset: {facts['dataset']}, train split{revision}",
        f"- licence of the source: {source_licence_text(facts['dataset'], facts['exam'])}",
        f"- strategy: {facts['strategy']}{share}",
        f"- seed: {facts['seed']}",
        f"- weakness read from: {source}",
        f"- prior of the subjects' accuracies: {facts['weak_prior']}",
        f"- options permuted: {'yes' if facts['permuted'] else 'no'}",
        f"- rationale: {facts['rationale']}",
        f"- quota that supply could not fill, given to other subjects: {facts['shortfall']}",
        "",
        "## Leakage guard",
        "",
        *(f"- {line}" for line in leakage_guard_lines(facts)),
        "",
        "## Warnings",
        "",
        *(f"- {note}" for note in facts["warnings"] or ["none"]),
        "",
        "## Plan",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
    ]
    for row in plan.iter_rows(named=True):
        cells = [_format_cell(name, row[name]) for name in _COLUMNS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
