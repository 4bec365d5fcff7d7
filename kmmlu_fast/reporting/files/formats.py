"""A comparison as Markdown, CSV or JSON on stdout, whole and without colours.

In: what ``compare`` found. Out: a text. Knows nothing of files.
"""

from __future__ import annotations

import json

import polars as pl
from rich.table import Table
from rich.text import Text

from kmmlu_fast.reporting.config import CompareConfig
from kmmlu_fast.reporting.files.frames import as_json, changes_of
from kmmlu_fast.reporting.report_data import Findings
from kmmlu_fast.reporting.terminal import tables
from kmmlu_fast.reporting.terminal.screens import lines_beside, refusals
from kmmlu_fast.reporting.wording.language import Words
from kmmlu_fast.reporting.wording.verdict import verdict


def formatted(
    config: CompareConfig,
    found: Findings,
    t: Words,
) -> str:
    """By --format: md, csv (a row a comparison and subject; shares and differences 0-1), or
    json (all numbers).
    """
    if config.format == "json":
        return json.dumps(as_json(found, t), ensure_ascii=False, indent=2)
    if config.format == "csv":
        frames = [changes_of(pair) for pair in found.pairs]
        return pl.concat(frames).write_csv().rstrip("\n") if frames else ""
    parts = []
    if len(found.runs) > 2 or found.refused:
        parts.append(markdown(tables.runs_table(found.headlines, found.pairs, t)))
    for pair in found.pairs:
        parts.append(f"### {_escaped(pair.first)} → {_escaped(pair.second)}")
        parts.append("\n".join(f"- {_escaped(line)}" for line in verdict(pair, t)))
        if len(found.pairs) == 1 or config.by_subject:
            parts += [markdown(table) for table in tables.pair_tables(pair, t, config.by_subject)]
    parts += [f"> {_escaped(line)}" for line in refusals(found, t)]
    if beside := lines_beside(found, config, t):
        parts.append("\n".join(f"- {_escaped(line.strip())}" for line in beside))
    return "\n\n".join(parts)


def markdown(table: Table) -> str:
    """A table of Rich as a Markdown table; the columns keep their sides."""
    columns = [[_plain(column.header), *[_plain(cell) for cell in column.cells]] for column in table.columns]
    sides = ["---:" if column.justify == "right" else "---" for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], sides, *rows[1:]])


def _plain(cell: object) -> str:
    return _escaped(cell.plain if isinstance(cell, Text) else str(cell)) or " "


def _escaped(text: str) -> str:
    return (
        text.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
        .replace("\n", " ")
    )
