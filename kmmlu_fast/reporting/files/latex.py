"""Comparisons for a paper: booktabs tables and a methods paragraph, in LaTeX or Markdown.

In: ``ReportData``, a translator. Out: a text; Rich tables are only the carrier of cells. Knows nothing of
files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.terminal import tables
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.reporting.wording.methods_text import methods_sentences
from kmmlu_fast.reporting.wording.verdict import headline_sentence

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "–": "--",
    "…": r"\ldots{}",
    "\n": " ",
}
_TABLE = str.maketrans(_ESCAPES)
_HEADER_LENGTH = 14  # characters; a longer heading stands in several lines
# A table wider than the line (a two-column page, many columns) is scaled to it; others keep their size.
_SHRUNK_TO_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; Hangul needs kotex or a Unicode engine."""
    return text.translate(_TABLE)


def report_data_to_latex(report: ReportData, t: Translator, by_subject: bool) -> str:
    """The leaderboard, each pair, subjects x models, and the methods. ``t`` has the part "methods"."""
    parts = ["% \\usepackage{booktabs,graphicx}" + ("" if t.lang == "en" else "  \\usepackage{kotex}")]
    board = tables.leaderboard_table(report.headlines, report.pairs, t)
    kept = [0, 1, 2, 3]
    if report.pairs:
        p_column = [str(column.header) for column in board.columns].index(t("p"))
        kept += [p_column - 1, p_column]
    parts.append(table_to_latex(board, t("board_caption", exam=report.base.exam_title), "leaderboard", kept))
    for number, pair in enumerate(report.pairs, 1):
        caption = headline_sentence(pair, t)
        names = {t("first"): pair.first, t("second"): pair.second}
        headlines = tables.headlines_table(pair, t)
        parts.append(table_to_latex(headlines, caption, f"pair-{number}", names=names))
        if by_subject or len(report.pairs) == 1:
            shown = tables.subject_changes_table(pair, t, by_subject)
            caption = t("changes_caption", first=pair.first, second=pair.second)
            parts.append(table_to_latex(shown, caption, f"subjects-{number}", names=names))
    if by_subject:
        caption = t("subjects_caption", exam=report.base.exam_title)
        parts.append(table_to_latex(tables.subject_scores_table(report.runs, t), caption, "subjects"))
    parts.append("% " + t("methods_title") + "\n" + escape_latex(" ".join(methods_sentences(report, t))))
    parts.append("% " + t("cite_note"))
    return "\n\n".join(parts)


def table_to_latex(
    table: Table,
    caption: str,
    label: str,
    keep: Sequence[int] | None = None,
    names: Mapping[str, str] | None = None,
) -> str:
    """A booktabs table of the columns in ``keep`` (default: all), headers replaced by ``names``. A * at the
    end of a cell becomes a superscript, "a … b" an interval in brackets.
    """
    columns = [table.columns[place] for place in keep] if keep else list(table.columns)
    sides = "".join("r" if column.justify == "right" else "l" for column in columns)
    header = [
        _header_latex((names or {}).get(title, title), side)
        for title, side in zip((_plain_text(column.header) for column in columns), sides, strict=True)
    ]
    rows = zip(*([_cell_latex(cell) for cell in column.cells] for column in columns), strict=True)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\small",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{label}}}",
        _SHRUNK_TO_FIT,
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _header_latex(title: str, side: str) -> str:
    """A heading; a long one in lines, broken after spaces and hyphens, so that the table fits the page."""
    if len(title) <= _HEADER_LENGTH:
        return escape_latex(title)
    lines = [""]
    for piece in re.findall(r"[^ -]*[ -]?", title):
        if lines[-1] and len((lines[-1] + piece).strip()) > _HEADER_LENGTH:
            lines.append("")
        lines[-1] += piece
    stacked = r" \\ ".join(escape_latex(line.strip()) for line in lines)
    return rf"\shortstack[{side}]{{{stacked}}}" if len(lines) > 1 else stacked


def _plain_text(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _cell_latex(cell: object) -> str:
    plain = _plain_text(cell)
    low, range_mark, high = plain.partition(" … ")
    text = escape_latex(f"[{low}, {high}]" if range_mark else plain)
    return text[:-1] + "$^{*}$" if text.endswith("*") else text
