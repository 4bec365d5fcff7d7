"""The output of ``compare`` and ``report --show``: one screen per pair, a question with all its answers.

In: ``ReportData``, a translator. Out: text on stdout, fitted to the terminal. Knows nothing of how the
numbers are computed.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import normalize_logprobs
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line, strip_control_characters
from kmmlu_fast.reporting.terminal import tables
from kmmlu_fast.reporting.wording import exam_text
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.runs.run import Run

if TYPE_CHECKING:  # they bring the comparisons and the readers of all foreign files along
    from kmmlu_fast.analysis.comparison import PairComparison
    from kmmlu_fast.reporting.config import CompareConfig
    from kmmlu_fast.reporting.report_data import ReportData


def wide_console() -> Console:
    """stdout as wide as the terminal (or COLUMNS); files and pipes are wide enough that nothing is cut."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, soft_wrap=False, width=None if narrow else 1_000)


def print_fitted_table(console: Console, table: Table, *keep: int) -> list[str]:
    """The table with as many columns as fit: the first, then ``keep`` in that order, then the others from
    the left. Returns the headings that were shown.
    """
    order = [0, *keep, *[place for place in range(1, len(table.columns)) if place not in keep]]
    columns = list(table.columns)
    for count in range(len(columns), 1, -1):
        table.columns = [columns[place] for place in sorted(order[:count])]
        for place, column in enumerate(table.columns):
            column._index = place  # by which Rich finds the last column, which has no padding
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            break
    console.print(table)
    return [str(column.header) for column in table.columns]


def print_comparisons(report: ReportData, config: CompareConfig, t: Translator) -> None:
    """Print everything; best viewed at 100 columns or more."""
    console = wide_console()
    if report.exams:
        _print_exams(console, report, t)
    if len(report.runs) > 2 or report.refused:
        board = tables.leaderboard_table(report.headlines, report.pairs, t, report.ranks)
        keep = [1, 2]
        if report.pairs:
            p_column = [str(column.header) for column in board.columns].index(t("p"))
            keep += [p_column - 1, p_column]
        print_fitted_table(console, board, *keep)
    for pair in report.pairs:
        _print_pair(console, pair, t, brief=len(report.pairs) > 1, by_subject=config.by_subject)
    if forms := tables.forms_table(report.runs, t):
        print_fitted_table(console, forms, 2, 3, 4, 5)
    for line in refusal_lines(report, t):
        console.print(Text(one_line(line)), style="yellow", markup=False, soft_wrap=not console.is_terminal)
    for line in recipe_and_audit_lines(report, config, t):
        print(line)


def refusal_lines(report: ReportData, t: Translator) -> list[str]:
    """A sentence per run that was not compared."""
    return [t("not_comparable", first=report.base.name, second=name, why=why) for name, why in report.refused]


def recipe_and_audit_lines(report: ReportData, config: CompareConfig, t: Translator) -> list[str]:
    """What --group and --key-audit asked for."""
    from kmmlu_fast.reporting.wording.recipe_text import key_audit_lines, recipe_sentence

    audit = key_audit_lines(report.key_audit, t) if config.key_audit else []
    return [*(recipe_sentence(recipe, t) for recipe in report.recipes), *audit]


def _print_exams(console: Console, report: ReportData, t: Translator) -> None:
    """Exams x model states, and the sentence about each state."""
    for line in exam_text.exam_sentences(report.exams, t):
        console.print(Text(line, style="bold"))
    console.print(exam_text.exam_terminal_table(report.exams, t))


def _print_pair(console: Console, pair: PairComparison, t: Translator, brief: bool, by_subject: bool) -> None:
    """The verdict, then the tables; ``brief``: the verdict alone."""
    from kmmlu_fast.reporting.wording.verdict import word_verdict

    names = f"{t('first')}: {pair.first}   {t('second')}: {pair.second}"
    console.print(Text(strip_control_characters(names), style="bold"))
    verdict = word_verdict(pair, t)
    for line in [*verdict.cautions, verdict.headline, *verdict.sentences]:
        _print_indented(console, line, 2)
    if verdict.details:
        console.print(Text("  " + t("details"), style="dim"))
    for line in verdict.details:
        _print_indented(console, line, 4, style="dim")
    shown: list[str] = []
    if not brief:
        shown += print_fitted_table(console, tables.headlines_table(pair, t), 3, 5, 1, 2)
        if pair.letters is not None:
            print_fitted_table(console, tables.letters_table(pair, pair.letters, t))
        print_fitted_table(console, tables.supercategories_table(pair, t), 4, 6, 5)
    if by_subject or not brief:
        shown += print_fitted_table(console, tables.subject_changes_table(pair, t, by_subject), 4, 6, 5)
        notes = [
            t("discordant_note") if t("discordant") in shown else "",
            t("significant_note"),
            t("mde_note") if t("mde") in shown else "",
        ]
        _print_indented(console, "  ".join(filter(None, notes)), 0, style="dim")


def _print_indented(console: Console, line: str, indent: int, style: str = "") -> None:
    """A line that is indented in all of its rows; files and pipes get it in one row."""
    text = Text(strip_control_characters(line), style=style)
    rows = text.wrap(console, console.width - indent) if console.is_terminal else [text]
    for row in rows:
        row.rstrip()
        console.print(Text(" " * indent).append_text(row), soft_wrap=not console.is_terminal)


def print_questions(runs: list[Run], questions: pl.DataFrame | None, wanted: list[str]) -> None:
    """Print single questions: texts (with a dataset), key, and what each run answered."""
    console = Console(highlight=False)
    for question_id in wanted:
        is_wanted = pl.col("question_id") == question_id
        rows = [
            (run.name, row)
            for run in runs
            if run.predictions is not None
            for row in run.frame.filter(is_wanted).head(1).iter_rows(named=True)
        ]
        if not rows:
            raise ConfigError(
                f"--show {bounded_repr(question_id)}: is in none of the runs; ids look like"
                f" {runs[0].frame['question_id'][0]}"
            )
        item = None
        if questions is not None:
            item = next(questions.filter(is_wanted).iter_rows(named=True), None)
        _print_question(console, question_id, item, rows)


def _print_question(
    console: Console, question_id: str, item: dict[str, Any] | None, rows: list[tuple[str, dict[str, Any]]]
) -> None:
    """One question: its texts if known, the key, and each run's answer, probabilities and generated text."""
    answer = rows[0][1]["answer"]
    console.print(Text(strip_control_characters(question_id), style="bold"))
    if item is not None:
        console.print(Text(strip_control_characters(item["question"])))
        for letter in OPTION_LETTERS:
            if item.get(letter) is not None:
                option = strip_control_characters(f"  {letter}. {item[letter]}")
                console.print(Text(option, style="green" if letter == answer else ""))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    # a long run name wraps; it never takes space from the numbers
    table.add_column(Text(f"key {answer}"), overflow="fold", max_width=36)
    count = max(row["num_options"] or 4 for _, row in rows)
    for heading in ("answer", *[f"P({letter})" for letter in OPTION_LETTERS[:count]], "read by"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for name, row in rows:
        four = [row[f"logprob_{letter}"] for letter in LETTERS]
        logprobs = row["option_logprobs"] or [value for value in four if value is not None]
        shares = ["–"] * count
        if len(logprobs) == count:
            shares = [f"{math.exp(value):.3f}" for value in normalize_logprobs(logprobs)]
        cells = (name, row["prediction"] or "unparsed", *shares, row["read_by"] or "–")
        table.add_row(*tables.text_cells(*cells))
    console.print(table)
    for name, row in rows:
        for text in row["texts"] or []:
            console.print(Text(strip_control_characters(f"{name}:"), style="bold"))
            console.print(Text(strip_control_characters(text or "")))
