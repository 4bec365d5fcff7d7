"""A comparison as Markdown, LaTeX, CSV or JSON on stdout, whole and without colours.

In: ``ReportData``. Out: a text. Knows nothing of files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl
from rich.table import Table
from rich.text import Text

from kmmlu_fast.reporting.config import CompareConfig
from kmmlu_fast.reporting.files.frames import report_data_json, subject_changes_frame
from kmmlu_fast.reporting.files.latex import report_data_to_latex
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.terminal import tables
from kmmlu_fast.reporting.terminal.screens import recipe_and_audit_lines, refusal_lines
from kmmlu_fast.reporting.wording.language import Translator, get_translator
from kmmlu_fast.reporting.wording.methods_text import methods_sentences
from kmmlu_fast.reporting.wording.verdict import verdict_lines

_MARKDOWN_ESCAPES = str.maketrans({"\\": r"\\", "|": r"\|", "<": "&lt;", "*": r"\*", "\n": " "})


def format_report_data(config: CompareConfig, report: ReportData, t: Translator) -> str:
    """By --format: md, latex, csv (a row per comparison and subject; shares and differences 0-1), or json."""
    if config.format == "json":
        return json.dumps(report_data_json(report, t), ensure_ascii=False, indent=2)
    if config.format == "csv":
        frames = [subject_changes_frame(pair) for pair in report.pairs]
        return pl.concat(frames).write_csv().rstrip("\n") if frames else ""
    t = get_translator(t.lang, "methods")
    if config.format == "latex":
        return report_data_to_latex(report, t, config.by_subject)
    parts = []
    if len(report.runs) > 2 or report.refused:
        board = tables.leaderboard_table(report.headlines, report.pairs, t, report.ranks)
        parts.append(table_to_markdown(board))
    for pair in report.pairs:
        parts.append(f"### {_escape_markdown(pair.first)} → {_escape_markdown(pair.second)}")
        parts.append(lines_to_markdown(verdict_lines(pair, t)))
        if len(report.pairs) == 1 or config.by_subject:
            parts += [table_to_markdown(table) for table in tables.pair_tables(pair, t, config.by_subject)]
    parts += [f"> {_escape_markdown(line)}" for line in refusal_lines(report, t)]
    if lines := recipe_and_audit_lines(report, config, t):
        parts.append(lines_to_markdown(lines))
    if config.by_subject:
        parts.append(table_to_markdown(tables.subject_scores_table(report.runs, t)))
    parts.append(f"**{t('methods_title')}.** {_escape_markdown(' '.join(methods_sentences(report, t)))}")
    return "\n\n".join(parts)


def lines_to_markdown(lines: Sequence[str]) -> str:
    """A list, an entry per line."""
    return "\n".join(f"- {_escape_markdown(line.strip())}" for line in lines)


def table_to_markdown(table: Table) -> str:
    """A Rich table as Markdown; the columns keep their alignment."""
    columns = [
        [_cell_text(column.header), *[_cell_text(cell) for cell in column.cells]] for column in table.columns
    ]
    sides = ["---:" if column.justify == "right" else "---" for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], sides, *rows[1:]])


def _cell_text(cell: object) -> str:
    return _escape_markdown(cell.plain if isinstance(cell, Text) else str(cell)) or " "


def _escape_markdown(text: str) -> str:
    return text.translate(_MARKDOWN_ESCAPES)
