"""A comparison as Markdown, CSV or JSON on stdout, whole and without colours.

In: what ``compare`` found. Out: a text. Knows nothing of files.
"""

from __future__ import annotations

import json

import polars as pl
from rich.table import Table
from rich.text import Text

from kmmlu_fast.analysis.comparison import Comparison, Settings
from kmmlu_fast.analysis.headline import headline
from kmmlu_fast.reporting import tables
from kmmlu_fast.reporting.exports import as_json
from kmmlu_fast.reporting.inputs import CompareConfig
from kmmlu_fast.reporting.language import Texts
from kmmlu_fast.reporting.verdict import verdict
from kmmlu_fast.runs.run import Run


def formatted(
    config: CompareConfig,
    runs: list[Run],
    pairs: list[Comparison],
    refused: list[str],
    settings: Settings,
    t: Texts,
) -> str:
    """By --format: md, csv (a row a comparison and subject; shares and differences 0-1), or
    json (all numbers).
    """
    if config.format == "json":
        return json.dumps(as_json(runs, pairs, settings, config.lang), ensure_ascii=False, indent=2)
    if config.format == "csv":
        frames = [
            pair.subjects.select(
                pl.lit(pair.first).alias("first_run"), pl.lit(pair.second).alias("second_run"), pl.all()
            )
            for pair in pairs
        ]
        return pl.concat(frames).write_csv().rstrip("\n") if frames else ""
    parts = []
    if len(runs) > 2 or refused:
        parts.append(
            markdown(
                tables.runs_table([headline(run, settings.overlap) for run in runs], pairs, t, config.lang)
            )
        )
    for pair in pairs:
        parts.append(f"### {_escaped(pair.first)} → {_escaped(pair.second)}")
        parts.append("\n".join(f"- {_escaped(line)}" for line in verdict(pair, t, config.lang)))
        if len(pairs) == 1 or config.by_subject:
            parts += [
                markdown(table) for table in tables.pair_tables(pair, t, config.lang, config.by_subject)
            ]
    parts += [f"> {_escaped(line)}" for line in refused]
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
