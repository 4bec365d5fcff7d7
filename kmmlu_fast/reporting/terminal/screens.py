"""What ``compare`` and ``report --show`` print: one screen a pair, a question with all its answers.

In: findings, words. Out: text on stdout, fitted to the terminal. Knows nothing of how numbers come about.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import polars as pl
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import normalize_logprobs
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line, strip_control_characters
from kmmlu_fast.reporting.config import CompareConfig
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.terminal import tables
from kmmlu_fast.reporting.wording import exam_text
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.reporting.wording.recipe_text import key_audit_lines, recipe_sentence
from kmmlu_fast.reporting.wording.verdict import verdict_lines
from kmmlu_fast.runs.run import Run


def wide_console() -> Console:
    """stdout as wide as the terminal (or COLUMNS); a file or a pipe is as wide as its longest
    line, so nothing is cut there.
    """
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, soft_wrap=False, width=None if narrow else 1_000)


def print_fitted_table(console: Console, table: Table, *keep: int) -> None:
    """The table with as many columns as there is room for: the first, then ``keep`` in that
    order, then the others from the left.
    """
    order = [0, *keep, *[place for place in range(1, len(table.columns)) if place not in keep]]
    columns = list(table.columns)
    for count in range(len(columns), 1, -1):
        table.columns = [columns[place] for place in sorted(order[:count])]
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            break
    console.print(table)


def print_comparisons(found: ReportData, config: CompareConfig, t: Translator) -> None:
    """Print it all, best seen at 100 columns or more."""
    console = wide_console()
    if found.exams:
        _print_exams(console, found, t)
    if len(found.runs) > 2 or found.refused:
        board = tables.leaderboard_table(found.headlines, found.pairs, t)
        against = next(
            (place for place, column in enumerate(board.columns) if str(column.header) == t("p")), 2
        )
        print_fitted_table(console, board, 1, 2, *((against - 1, against) if found.pairs else ()))
    for pair in found.pairs:
        _print_pair(console, pair, t, brief=len(found.pairs) > 1, by_subject=config.by_subject)
    for line in refusal_lines(found, t):
        console.print(Text(one_line(line)), style="yellow", markup=False, soft_wrap=not console.is_terminal)
    for line in recipe_and_audit_lines(found, config, t):
        print(line)


def refusal_lines(found: ReportData, t: Translator) -> list[str]:
    """A sentence a run that was not compared."""
    return [t("not_comparable", first=found.base.name, second=name, why=why) for name, why in found.refused]


def recipe_and_audit_lines(found: ReportData, config: CompareConfig, t: Translator) -> list[str]:
    """What --group and --key-audit asked for."""
    audit = key_audit_lines(found.key_audit, t) if config.key_audit else []
    return [*(recipe_sentence(recipe, t) for recipe in found.recipes), *audit]


def _print_exams(console: Console, found: ReportData, t: Translator) -> None:
    """Exams x model states, and the sentence about each state."""
    for line in exam_text.exam_sentences(found.exams, t):
        console.print(Text(line, style="bold"))
    console.print(exam_text.exam_terminal_table(found.exams, t))


def _print_pair(console: Console, pair: PairComparison, t: Translator, brief: bool, by_subject: bool) -> None:
    """The verdict, then the tables; ``brief``: the verdict alone."""
    console.print(
        Text(
            strip_control_characters(f"{t('first')}: {pair.first}   {t('second')}: {pair.second}"),
            style="bold",
        )
    )
    for line in verdict_lines(pair, t):
        console.print(Text(strip_control_characters("  " + line)), soft_wrap=not console.is_terminal)
    if not brief:
        print_fitted_table(console, tables.headlines_table(pair, t), 3, 5, 1, 2)
        if pair.letters is not None:
            print_fitted_table(console, tables.letters_table(pair, pair.letters, t))
        print_fitted_table(console, tables.supercategories_table(pair, t), 4, 6, 5)
    if by_subject or not brief:
        print_fitted_table(console, tables.subject_changes_table(pair, t, by_subject), 4, 6, 5)
        console.print(Text(t("significant_note"), style="dim"), soft_wrap=not console.is_terminal)


def print_questions(runs: list[Run], questions: pl.DataFrame | None, wanted: list[str]) -> None:
    """Print single questions: texts (with a dataset), key, and what each run answered."""
    console = Console(highlight=False)
    for question_id in wanted:
        found = [
            (run.name, run.frame.filter(pl.col("question_id") == question_id))
            for run in runs
            if run.predictions is not None
        ]
        rows = [(name, frame.row(0, named=True)) for name, frame in found if len(frame)]
        if not rows:
            raise ConfigError(
                f"--show {bounded_repr(question_id)}: is in none of the runs; ids look like"
                f" {runs[0].frame['question_id'][0]}"
            )
        item = (
            None
            if questions is None
            else next(questions.filter(pl.col("question_id") == question_id).iter_rows(named=True), None)
        )
        _print_question(console, question_id, item, rows)


def _print_question(
    console: Console, question_id: str, item: dict[str, Any] | None, rows: list[tuple[str, dict[str, Any]]]
) -> None:
    """One question: texts where the dataset is known, the key, and each run's answer,
    probabilities and generated text.
    """
    answer = rows[0][1]["answer"]
    console.print(Text(strip_control_characters(question_id), style="bold"))
    if item is not None:
        console.print(Text(strip_control_characters(item["question"])))
        for letter in [name for name in OPTION_LETTERS if item.get(name) is not None]:
            console.print(
                Text(
                    strip_control_characters(f"  {letter}. {item[letter]}"),
                    style="green" if letter == answer else "",
                )
            )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(
        Text(f"key {answer}"), overflow="fold", max_width=36
    )  # a long run name takes lines, never the figures' room
    count = max(row["num_options"] or 4 for _, row in rows)
    for heading in ("answer", *[f"P({letter})" for letter in OPTION_LETTERS[:count]], "read by"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for name, row in rows:
        four = [row[f"logprob_{letter}"] for letter in LETTERS]
        logprobs = row["option_logprobs"] or [value for value in four if value is not None]
        known = len(logprobs) == count
        shares = (
            [f"{math.exp(value):.3f}" for value in normalize_logprobs(logprobs)] if known else ["–"] * count
        )
        table.add_row(
            *tables.text_cells(name, row["prediction"] or "unparsed", *shares, row["read_by"] or "–")
        )
    console.print(table)
    for name, row in rows:
        for text in row["texts"] or []:
            console.print(Text(strip_control_characters(f"{name}:"), style="bold"))
            console.print(Text(strip_control_characters(text or "")))
